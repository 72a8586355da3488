#!/bin/sh
# Install the package into an image, from /opt/build: as root, on any base with apt. The only argument is the frozen list.
# With wheels in /opt/build/wheels, nothing is fetched but what apt may need.
set -eu
umask 022
# While Apptainer builds, /tmp and more are those of the machine: what is written lies in one folder, which goes at the end.
TMPDIR=$(mktemp -d)
export TMPDIR HOME="$TMPDIR"
trap 'rm -rf "$TMPDIR"' EXIT
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
    own=$(echo /opt/build/wheels/keras_experiments_manager-*.whl)
else
    offline=
    own=/opt/build/source
fi
# shellcheck disable=SC2086
"$home/bin/pip" install --quiet $offline --require-hashes --only-binary :all: --no-compile -r "$list"
# shellcheck disable=SC2086
"$home/bin/pip" install --quiet $offline --no-deps --no-compile "$own"

# What runs never read: headers, symbols for debuggers, tests, pip. The metadata of packages stays, for `pip list --path`.
packages=$(echo "$home"/lib/python3*/site-packages)
rm -rf "$packages/tensorflow/include" "$packages/clang" "$packages"/ray/cpp "$packages"/ray/jars \
    "$packages"/pip "$packages"/pip-*.dist-info "$packages"/setuptools "$packages"/setuptools-*.dist-info \
    "$packages"/_distutils_hack "$packages"/distutils-precedence.pth "$packages"/pkg_resources "$home"/bin/pip*
# Only libraries that no tool has changed: strip breaks those of NumPy and others that patchelf wrote anew.
for name in tensorflow grpc uvloop; do
    find "$packages/$name" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2> /dev/null || true
done
for name in numpy scipy sklearn pandas matplotlib joblib networkx h5py; do
    [ ! -d "$packages/$name" ] || find "$packages/$name" -depth -type d \( -name tests -o -name test \) -exec rm -rf {} +
done
find "$packages" -type f \( -name '*.a' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' \) -delete
# Examples are of use where one trains; the other images are to be small.
case "$1" in
requirements.txt | requirements-gpu.txt) ;;
*) rm -rf "$packages/experiments_manager/gallery" ;;
esac
# The root is read-only when it runs: what is not compiled now is compiled at each start. Hashes make two builds alike.
case "$1" in
requirements-client.txt | requirements-lite.txt) sh /opt/build/slim_small.sh "$packages" ;;
*) python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$packages" > /dev/null || true ;;
esac

mkdir -p "$home/share"
for file in run.sh test.sh ready.py first_answer.py make_model.py double.tflite; do
    cp "/opt/build/$file" "$home/share/"
done
chmod -R a+rX "$home"
mkdir -p /data
chmod 1777 /data
[ -s /etc/hosts ] || printf '127.0.0.1 localhost\n::1 localhost\n' > /etc/hosts
ln -sf "$home/bin/experiments_manager" "$home/bin/em" /usr/local/bin/

sh /opt/build/slim.sh "$1"
