#!/bin/sh
# Remove from an image what only building it needed. The only argument is the frozen list: all but the image for training
# lose Debian's package manager and what it rests on, too. Nothing is removed from /tmp, which may be the machine's own.
set -uf
export DEBIAN_FRONTEND=noninteractive

apt-get purge -y -qq binutils python3-venv > /dev/null 2>&1
apt-get autoremove --purge -y -qq > /dev/null 2>&1
apt-get clean
case "$1" in
requirements.txt | requirements-gpu.txt) ;;
*)
    # What a package removes of itself needs a shell and its tools: those stay.
    unused="apt libapt-pkg.* gpgv debian-archive-keyring adduser passwd login mount util-linux.* e2fsprogs logsave
        sysvinit-utils init-system-helpers usr-is-merged ncurses-bin debconf.* perl.* libperl.* diffutils hostname
        libgnutls30 libp11-kit0 libhogweed6 libnettle8 libidn2-0 libunistring2 libtasn1-6 libgcrypt20 libgpg-error0
        libseccomp2 libsystemd0 libudev1 libxxhash0 libpam.* libsemanage.* libsepol2 libext2fs2 libss2 libaudit.*
        libcap-ng0 libblkid1 libsmartcols1 libfdisk1 libmount1 openssl"
    found=$(dpkg-query --show --showformat '${Package}\n' | grep -Ex "$(echo "$unused" | xargs | tr ' ' '|')")
    # shellcheck disable=SC2086
    dpkg --purge --force-all $found > /dev/null 2>&1
    set +f
    rm -rf /usr/lib/*/gconv /usr/lib/*/perl-base /usr/bin/dpkg* /var/lib/dpkg/*-old \
        /usr/lib/python3*/lib2to3 /usr/lib/python3*/pydoc_data /usr/lib/python3*/ensurepip \
        /usr/lib/python3*/distutils /usr/share/zoneinfo/right /usr/share/zoneinfo/posix
    ;;
esac
set +f
# In the images without TensorFlow, of shells /bin/sh alone is left, and what dpkg knows is which packages there are.
case "$1" in
requirements-client.txt | requirements-lite.txt) rm -rf /usr/bin/bash /usr/bin/tar /var/lib/dpkg/info ;;
esac
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /usr/share/doc /usr/share/man /usr/share/locale /usr/share/perl* \
    /usr/share/python-wheels /usr/lib/*/perl
