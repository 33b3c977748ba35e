#!/bin/sh
# Known vulnerabilities of the pinned packages. Exit code: 0 none is known, 1 there are some, 2 nobody could say.
# BIN: the folder of pip-audit.
found=$("$BIN/pip-audit" --strict --no-deps --disable-pip --requirement deploy/constraints.txt 2>&1) && {
    printf '%s\n' "$found"
    exit 0
}
printf '%s\n' "$found" >&2
case $found in
*"known vulnerabilit"*) exit 1 ;;
esac
echo "audit: nothing was checked. The package index that knows of vulnerabilities was not reached, or it is a mirror" >&2
echo "without that knowledge; run this where it can be reached. The versions are those of deploy/constraints.txt." >&2
exit 2
