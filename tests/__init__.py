"""The tests: what a user would notice, on real hosts (`tests.testbed`) wherever a host is involved."""
