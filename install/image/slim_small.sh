#!/bin/sh
# Remove from the images without TensorFlow what neither a client nor a server of TensorFlow Lite models uses. The argument
# is the folder of packages. What is wrongly removed, the test of the image finds.
set -eu
cd "$1"
rm -rf PIL/_avif* pillow.libs/libavif* numpy/_core/_simd* numpy/_core/_*_tests* numpy/f2py numpy/distutils \
    ai_edge_litert/libLiteRtWebGpuAccelerator.so ai_edge_litert/tools ai_edge_litert/vendors
find . -name '*.pyi' -delete
# Rich colours source code by these, in tracebacks; of Python, that is.
find pygments/lexers -name '*.py' ! -name __init__.py ! -name _mapping.py ! -name python.py -delete

cd /usr/lib/python3*/
rm -rf idlelib tkinter turtle* unittest test doctest.py pydoc.py _pydecimal.py lib2to3 sqlite3 curses wsgiref xmlrpc
cd lib-dynload
rm -f _codecs_* nis.* _dbm.* _sqlite3.* readline.* _curses*
cd /usr/lib/*-linux-gnu/
rm -f libkrb5* libgssapi* libk5crypto* libnsl* libtirpc* libdb-5* libsqlite3* libmvec* libreadline* libhistory* \
    /usr/bin/localedef

"$1/../../../bin/python" /opt/build/used_modules.py > "$TMPDIR/used"
find "$1" /usr/lib/python3* -name __pycache__ -prune -exec rm -rf {} +
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -i "$TMPDIR/used" > /dev/null
