"""The private parts of other libraries that dpsweep cannot do without: one module a library, and nowhere else.

Each module names the version that it was seen with (`SEEN_WITH`). `pyproject.toml` admits that minor version only. A test compares both
with the installed library and checks that no other module imports a private name.
"""
