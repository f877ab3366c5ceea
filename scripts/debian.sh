# shellcheck shell=bash
# Packages of Debian releases, unpacked without being installed. To be sourced by a script that has
# fail MESSAGE, and the folder $cache; what is fetched comes from the mirror of apt's own settings.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
work=

# debian_mirror [OPTION...]: where apt gets Debian from, as far as it has read its lists
debian_mirror() {
  # shellcheck disable=SC2016  # apt fills these in
  apt-get "$@" indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' |
    awk '$2 == "Debian" && !seen { print $1; seen = 1 }'
}

# fetch_debs SUITE PACKAGE...: unpacks packages of a Debian release into $work/root. Two runs at once
# don't meet: all of apt's state is in $work.
fetch_debs() {
  local suite=$1 package=$2 mirror state deb
  shift
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "$package can't be fetched: no apt-get and dpkg-deb here; install it and put it on PATH"
  [[ -r $keyring ]] || fail "$package can't be fetched: $keyring is missing (package debian-archive-keyring)"
  mkdir -p "$cache" 2>/dev/null || fail "$package can't be fetched: folder $cache can't be made"
  cache=$(cd "$cache" && pwd)
  work=$(mktemp -d "$cache/.fetch.XXXXXX" 2>/dev/null) || fail "folder $cache is not writable"
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$work"/{lists,cache/archives}/partial "$work/root"
  state=(-qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache"
    -o APT::Sandbox::User=root -o Acquire::Retries=2 -o Acquire::http::Timeout=20)

  mirror=$(debian_mirror)
  if [[ -z $mirror ]]; then # apt has not read its lists yet, as in a fresh container
    apt-get "${state[@]}" update 2>"$work/log" || fail "apt-get update failed: $(reason)"
    mirror=$(debian_mirror "${state[@]}")
  fi
  [[ -n $mirror ]] || fail "$package can't be fetched: apt's settings name no Debian mirror; put it on PATH"

  echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
  state+=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false)
  apt-get "${state[@]}" --error-on=any update 2>"$work/log" ||
    fail "the package list of Debian $suite can't be read: $(reason)"
  (cd "$work" && apt-get "${state[@]}" download "$@" >/dev/null 2>"$work/log") ||
    fail "$package can't be fetched from Debian $suite: $(reason)"
  for deb in "$work"/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
}

reason() { grep -m1 '^[EW]:' "$work/log" || tail -n1 "$work/log"; }
