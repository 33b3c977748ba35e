"""The commands of `dragoman` that need no more than serving does; others: model/cli.py, export/cli.py."""
