#!/bin/sh
# Install Debian packages that some tests need, where they aren't there: sh tools/debian_packages.sh orthanc dcmtk
# No service is left running. Where nothing can be installed it says what to do, and exits with 1.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

there() {
    case "$1" in
        orthanc) command -v Orthanc ;;
        orthanc-dicomweb) ls /usr/share/orthanc/plugins/libOrthancDicomWeb.so ;;
        dcmtk) command -v dcmdump ;;
        dicom3tools) command -v dciodvfy ;;
        openssl) command -v openssl ;;
        chromium) command -v chromium ;;
        *) dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep 'install ok installed' ;;
    esac >/dev/null 2>&1
}

missing=""
for package in "$@"; do
    there "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

give_up() {
    echo "not installed:$missing ($1). Install them by: sudo apt-get install$missing" >&2
    exit 1
}

command -v apt-get >/dev/null || give_up "this system has no apt-get"
if [ "$(id -u)" = 0 ]; then
    root="env"
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    root="sudo env"
else
    give_up "that needs root or sudo without a password"
fi

# one at a time, since tests that run side by side may all come here
if command -v flock >/dev/null && [ -z "${PELLUCID_PACKAGES_LOCKED:-}" ]; then
    PELLUCID_PACKAGES_LOCKED=1 exec flock -w 600 "${TMPDIR:-/tmp}/pellucid-packages.$(id -u).lock" sh "$0" "$@"
fi

# Debian starts a service as soon as its package is installed, unless this file says no
policy="${PELLUCID_POLICY_RC:-/usr/sbin/policy-rc.d}"
ours=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
    $root chmod 755 "$policy"
    ours=1
fi
tidy() { [ -z "$ours" ] || $root rm -f "$policy"; }
trap tidy EXIT

fetch="-o Acquire::Retries=1 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=300"
install() {
    # shellcheck disable=SC2086
    $root DEBIAN_FRONTEND=noninteractive apt-get $fetch install -y --no-install-recommends $missing >&2
}
# shellcheck disable=SC2086
install || { $root apt-get $fetch update >&2 && install; } || give_up "apt-get failed"

# nor should it start with the machine
for package in $missing; do
    case "$package" in
        orthanc) command -v systemctl >/dev/null && $root systemctl disable orthanc >/dev/null 2>&1 || true ;;
    esac
done
