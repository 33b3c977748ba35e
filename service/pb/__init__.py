"""Generated from proto/dragoman/v1/translation.proto by `make proto`; not written by hand."""
