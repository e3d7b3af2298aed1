# For a MicroPython build with the firmware frozen in: `make -C ports/esp32 FROZEN_MANIFEST=…/firmware/manifest.py`.
# Frozen, nothing but settings, identity and state lies in the file system, and a damaged one can't keep the firmware
# from starting.

include("$(PORT_DIR)/boards/manifest.py")  # noqa: F821 - the build's own names
package("firmware", base_path="..")  # noqa: F821
module("main.py", base_path=".")  # noqa: F821
