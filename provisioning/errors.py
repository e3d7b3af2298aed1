"""What can go wrong at the bench: every text says what happened and what to do next; every kind has its exit status."""


class ProvisioningError(Exception):
    """Base of all. exit_code: the command's exit status (docs/provisioning.md lists them)."""

    exit_code = 1


class SetupFault(ProvisioningError):
    """Something at the bench itself is missing or wrong: a setting, a file, a package, a passphrase."""

    exit_code = 2


class BoardNotFound(ProvisioningError):
    """No board answers to what was asked for."""

    exit_code = 3


class PortFault(ProvisioningError):
    """The port is there but can't be used: busy, or no permission."""

    exit_code = 4


class BoardLost(ProvisioningError):
    """The board was unplugged, fell silent or babbles: plug it in again and run the same command."""

    exit_code = 5


class WrongBoard(ProvisioningError):
    """The board is another chip, or carries another identity."""

    exit_code = 6


class BoardFault(ProvisioningError):
    """The board raised an exception, or what was written to it does not verify."""

    exit_code = 7


class FlashFault(ProvisioningError):
    """The flash could not be written, or the image is not what was pinned."""

    exit_code = 8


class AuthorityFault(ProvisioningError):
    """The certificate authority can't sign or revoke."""

    exit_code = 9


class HeadquartersUnreachable(ProvisioningError):
    """Headquarters did not answer."""

    exit_code = 10


class HeadquartersRefused(ProvisioningError):
    """Headquarters answered no; the text says why."""

    exit_code = 11


class SelfTestFailed(ProvisioningError):
    """The board was set up, but did not prove itself."""

    exit_code = 12
