"""Everything pytest needs to know of the suite."""

pytest_plugins = ["perf_tests.harness.plugin.hooks"]
