"""Private names of other libraries, one module a library, each use with a test that says when a release breaks it."""
