"""Each module says what is done (ATTACKS) to which gateway (SECTIONS, and the key of its OPERATOR, if not the usual one); it is done once, all at once."""

import pytest

from tests.hostile.siege import Siege, besieged


@pytest.fixture(scope="module")
def siege(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Siege:
    """How the module's attacks went."""
    module = request.module
    path, sections = tmp_path_factory.mktemp("siege"), getattr(module, "SECTIONS", {})
    return besieged(module.ATTACKS, path, getattr(module, "OPERATOR", ""), **sections)
