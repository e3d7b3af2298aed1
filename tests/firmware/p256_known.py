"""Known answers for P-256, read by both Pythons.

TIMES: a number, x and y of so many times the base point (NIST's test of point multiplication). SHARED: private key, the
other's x and y, the secret (NIST CAVS, ECC CDH on P-256, count 0). SIGNED: message, r and s with the private key SIGNER
(RFC 6979, A.2.5).
"""

GX = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
TIMES = (
    ("1", GX, "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"),
    (
        "2",
        "7cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47669978",
        "07775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1",
    ),
    (
        "3",
        "5ecbe4d1a6330a44c8f7ef951d4bf165e6c6b721efada985fb41661bc6e7fd6c",
        "8734640c4998ff7e374b06ce1a64a2ecd82ab036384fb83d9a79b127a27d5032",
    ),
    (
        "018ebbb95eed0e13",  # 112233445566778899
        "339150844ec15234807fe862a86be77977dbfb3ae3d96f4c22795513aeaab82f",
        "b1c14ddfdc8ec1b2583f51e85a5eb3a155840f2034730e9b5ada38b674336a21",
    ),
    (
        "159d893d4cdd747246cdca43590e13",  # 112233445566778899112233445566778899
        "1b7e046a076cc25e6d7fa5003f6729f665cc3241b5adab12b498cd32f2803264",
        "bfea79be2b666b073db69a2a241adab0738fe9d2dd28b5604eb8c8cf097c457b",
    ),
    (
        "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550",  # the order less 1
        GX,
        "b01cbd1c01e58065711814b583f061e9d431cca994cea1313449bf97c840ae0a",
    ),
)
SHARED = (
    (
        "7d7dc5f71eb29ddaf80d6214632eeae03d9058af1fb6d22ed80badb62bc1a534",
        "700c48f77f56584c5cc632ca65640db91b6bacce3a4df6b42ce7cc838833d287",
        "db71e509e3fd9b060ddb20ba5c51dcc5948d46fbf640dfe0441782cab85fa4ac",
        "46fc62106420ff012e54a434fbdd2d25ccc5852060561e68040dd7778997bd7b",
    ),
)
SIGNER = "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
SIGNED = (
    (
        b"sample",
        "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716",
        "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8",
    ),
    (
        b"test",
        "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367",
        "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083",
    ),
)


def check(p256, ecdsa, der):
    """Holds the firmware's modules against all of them; AssertionError where one differs."""
    for number, x, y in TIMES:
        assert p256.public(int(number, 16)) == bytes.fromhex("04" + x + y), number
    for number, x, y, secret in SHARED:
        assert p256.shared(int(number, 16), bytes.fromhex("04" + x + y)) == bytes.fromhex(secret), number
    for message, r, s in SIGNED:
        wanted = der.element(der.SEQUENCE, der.integer(int(r, 16)), der.integer(int(s, 16)))
        assert ecdsa.sign(int(SIGNER, 16), message) == wanted, message
