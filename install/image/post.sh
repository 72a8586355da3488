#!/bin/sh
# Install the package into an image, from /opt/build: as root, on any base with apt. The only argument is the frozen list.
# With wheels in /opt/build/wheels, nothing is fetched but what apt may need.
set -eu
umask 022
list="/opt/build/$1"
home=/opt/experiments_manager
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

if ! command -v python3 > /dev/null || ! command -v strip > /dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends python3 python3-venv binutils ca-certificates
fi

python3 -m venv "$home"
if [ -d /opt/build/wheels ]; then
    offline="--no-index --find-links /opt/build/wheels"
else
    offline=
fi
# shellcheck disable=SC2086
"$home/bin/pip" install --quiet $offline --require-hashes --only-binary :all: --no-compile -r "$list"
"$home/bin/pip" install --quiet --no-index --no-deps --no-compile /opt/build/experiments_manager-*.whl

# What runs never read: headers, symbols for debuggers, pip.
packages=$(echo "$home"/lib/python3*/site-packages)
rm -rf "$packages/tensorflow/include" "$packages/clang" "$packages"/pip "$packages"/pip-*.dist-info "$home"/bin/pip*
# Only TensorFlow's own libraries: strip breaks those of NumPy and others that patchelf has changed.
find "$packages/tensorflow" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2> /dev/null || true
find "$packages" -depth -type d \( -name tests -o -name test \) -path '*/numpy/*' -exec rm -rf {} +
# The root is read-only when it runs: what is not compiled now is compiled at each start. Hashes make two builds alike.
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages" > /dev/null || true

mkdir -p "$home/share"
cp /opt/build/run.sh /opt/build/test.sh /opt/build/make_model.py "$home/share/"
[ ! -d /opt/build/examples ] || cp -r /opt/build/examples "$home/share/"
chmod -R a+rX "$home"
ln -sf "$home/bin/experiments_manager" "$home/bin/em" /usr/local/bin/

apt-get purge -y -qq binutils python3-venv > /dev/null 2>&1 || true
apt-get autoremove --purge -y -qq > /dev/null 2>&1 || true
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale /usr/share/perl \
    /usr/share/python-wheels /root/.cache /tmp/* 
