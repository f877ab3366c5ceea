"""For your tests: the promises that every registry engine must keep."""

import sys

if pytest := sys.modules.get("pytest"):
    # Failed assertions then show their values, as in your own test files.
    pytest.register_assert_rewrite(
        "meshkit.testing.reading_contract",
        "meshkit.testing.registry_contract",
        "meshkit.testing.unreachable_contract",
        "meshkit.testing.keyvalue_contract",
        "meshkit.testing.keyvalue_fixtures",
        "meshkit.testing.keyvalue_watches",
    )
