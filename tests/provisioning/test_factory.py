"""A factory image starts into firmware without an identity, and holds exactly what its sheet says."""

import hashlib
import json
import random
import subprocess

import pytest

from provisioning import bundle, factory, flash, images
from provisioning.errors import FlashFault, SetupFault
from tests.parts import PROJECT, micropython
from tests.provisioning import esp_image
from tests.provisioning.rom_loader import Device, PtyBoard, RomLoader

FILES = {
    "/main.py": b"import probe_module\n",
    "/probe_module.py": b"SAID = 'from the factory'\n",
    **{
        f"/firmware/size{size}.mpy": random.Random(size).randbytes(size)
        for size in (0, 1, 63, 127, 128, 129, 300, 511, 1000, 4096, 9000)
    },
    "/firmware/boards/olimex.mpy": random.Random(2).randbytes(700),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pinned(tmp_path_factory.mktemp("base"), esp_image.image())


def pinned(folder, octets):
    path = folder / "firmware.bin"
    path.write_bytes(octets)
    return images.Image(images.Pin("TEST", "1.25.0", "ESP32", hashlib.sha256(octets).hexdigest(), len(octets)), path)


@pytest.fixture(scope="module")
def built(base):
    return factory.build(base, FILES)


def test_what_was_put_in_is_what_comes_out(base, built):
    octets = base.path.read_bytes()
    assert built.offset == 0x1000 and built.image.startswith(octets)
    assert set(built.image[len(octets) : 0x1FF000]) == {0xFF}, "what was in the flash before is gone"
    assert len(built.image) == 0x400000 - 0x1000
    assert factory.contents(built.image[0x1FF000:]) == {path[1:]: content for path, content in FILES.items()}


def test_the_sheet_says_the_hash_of_everything(built, tmp_path):
    sheet = json.loads(factory.save(built, tmp_path / "factory.bin").read_text())
    written = (tmp_path / "factory.bin").read_bytes()
    assert sheet["sha256"] == hashlib.sha256(written).hexdigest() and sheet["size"] == len(written)
    assert sheet["files"]["/main.py"] == {"size": 20, "sha256": hashlib.sha256(FILES["/main.py"]).hexdigest()}
    assert set(sheet["files"]) == set(FILES) and sheet["identity"] is None
    assert sheet["flash_with"] == "esptool --chip esp32 write-flash 0x1000 factory.bin"
    assert sheet["micropython"]["version"] == "1.25.0" and sheet["file_system"]["offset"] == 0x200000


def test_the_same_files_make_the_same_image(base, built):
    again = factory.build(base, dict(reversed(list(FILES.items()))))
    assert again.image == built.image


def test_where_the_file_system_goes_is_read_from_the_image(tmp_path):
    base = pinned(tmp_path, esp_image.image(vfs=("vfs", 1, 0x81, 0x280000, 0x40000, 0)))
    built = factory.build(base, FILES)
    assert len(built.image) == 0x2C0000 - 0x1000
    assert factory.contents(built.image[0x280000 - 0x1000 :])["main.py"] == FILES["/main.py"]


def test_real_micropython_mounts_it_and_runs_what_is_on_it(built, tmp_path):
    (tmp_path / "vfs.bin").write_bytes(built.image[0x1FF000:])
    wanted = {path: [len(content), hashlib.sha256(content).hexdigest()] for path, content in FILES.items()}
    (tmp_path / "wanted.json").write_text(json.dumps(wanted))
    script = PROJECT / "tests" / "provisioning" / "run_factory.py"
    ran = subprocess.run(
        [micropython(), "-X", "heapsize=16M", str(script), str(tmp_path / "vfs.bin"), str(tmp_path / "wanted.json")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout.strip() == f"mounted {len(FILES)} from the factory", ran.stdout + ran.stderr


def test_the_real_firmware_goes_in_and_onto_a_chip(base, tmp_path):
    built = factory.build(base, bundle.build(PROJECT, "olimex_esp32_poe_iso"))
    factory.save(built, tmp_path / "factory.bin")
    as_image = pinned(tmp_path, built.image)
    with PtyBoard(Device(RomLoader())) as board:
        flash.write(board.port, as_image, before="no-reset", after="no-reset")
        assert board.device.rom.flash[0x1000:] == built.image


@pytest.mark.parametrize(
    "path",
    [
        "/settings.json", "settings.json", "/identity/key.der", "/identity.new/cert.der",
        "/state/boot", "/firmware/ca.pem", "/Settings.json", "/settings.json.part", "/identity", "/secrets.py", "/a/b/key.key",
    ],
)  # fmt: skip
def test_an_identity_or_settings_never_go_in(base, path):
    with pytest.raises(SetupFault, match="looks like an identity or settings"):
        factory.build(base, {**FILES, path: b"x"})


def test_a_key_under_an_innocent_name_does_not_go_in_either(base):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    for encoding in (serialization.Encoding.DER, serialization.Encoding.PEM):
        for form in (serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8):
            octets = key.private_bytes(encoding, form, serialization.NoEncryption())
            with pytest.raises(SetupFault, match="holds a key"):
                factory.build(base, {**FILES, "/firmware/tones.mpy": b"noise" + octets})


@pytest.mark.parametrize("path", ["../x.py", "/firmware/../settings.json", "/../../x", "", "/", "a\\b"])
def test_a_path_that_leads_out_is_refused(base, path):
    with pytest.raises(SetupFault, match="not a path on a board"):
        factory.build(base, {**FILES, path: b"x"})


def test_without_main_py_or_with_too_much_it_says_so(base):
    with pytest.raises(SetupFault, match="without main.py"):
        factory.build(base, {"/firmware/x.mpy": b""})
    with pytest.raises(SetupFault, match="do not go into the file system"):
        factory.build(base, {**FILES, "/firmware/huge.mpy": bytes(3_000_000)})


def test_an_image_without_a_file_system_or_that_changed_is_refused(base, tmp_path):
    with pytest.raises(FlashFault, match="no 'vfs' partition"):
        factory.build(pinned(tmp_path, esp_image.image(vfs=None)), FILES)
    changed = pinned(tmp_path, esp_image.image(seed=5))
    changed.path.write_bytes(esp_image.image(seed=6))
    with pytest.raises(FlashFault, match="changed since"):
        factory.build(changed, FILES)
