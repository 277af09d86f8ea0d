"""Private parts of other libraries that proctool relies on, a file for each library.

They can change in any release without notice. A test keeps private names out of all other files, and pyproject.toml
has upper pins for these libraries: the tested version and the next minor one.
"""
