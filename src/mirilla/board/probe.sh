# Collects the facts of a kit: prints key=value lines and changes nothing. POSIX sh.
root=${MIRILLA_KIT_ROOT:-}
PATH=$PATH:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/opt/vc/bin
fact() { printf '%s=%s\n' "$1" "$(printf '%s' "$2" | tr '\n\r\000' '   ')"; }
has() { command -v "$1" >/dev/null 2>&1; }
limit() { if has timeout; then timeout "$@"; else shift; "$@"; fi; }

fact probe 1
fact user "$(id -un)"
fact home "$HOME"
fact kernel "$(uname -r)"
if [ -r "$root/etc/machine" ]; then fact machine "$(cat "$root/etc/machine")"; else fact machine "$(uname -m)"; fi
fact board "$(tr -d '\000' <"$root/proc/device-tree/model" 2>/dev/null)"
fact os "$(. "$root/etc/os-release" 2>/dev/null; printf '%s' "${PRETTY_NAME:-}")"

node=$root/dev/vision_spicomm
if [ ! -e "$node" ]; then fact node no; elif [ -r "$node" ] && [ -w "$node" ]; then fact node yes; else fact node denied; fi
if grep -q '^aiy_vision ' "$root/proc/modules" 2>/dev/null; then fact driver loaded
elif find "$root/lib/modules/$(uname -r)" -name 'aiy[-_]vision.ko*' 2>/dev/null | grep -q .; then fact driver there
else fact driver no; fi
if has dpkg-query && dpkg-query -W -f '${Status}' aiy-dkms 2>/dev/null | grep -q 'ok installed'; then fact aiy_dkms yes; fi

fact camera "$(limit 10 vcgencmd get_camera 2>/dev/null)"
fact throttled "$(limit 10 vcgencmd get_throttled 2>/dev/null)"
fact free_kb "$(df -Pk "$HOME" 2>/dev/null | awk 'END { print $4 }')"
if [ -w "$HOME" ]; then fact home_writable yes; else fact home_writable no; fi
missing=
for tool in tar sha256sum mv ln readlink; do has "$tool" || missing="$missing $tool"; done
fact missing "$missing"

joy= service=
if has systemctl; then
  joy=$(systemctl is-active joy_detection_demo.service 2>/dev/null)
  fact joy "$joy"
  fact joy_enabled "$(systemctl is-enabled joy_detection_demo.service 2>/dev/null)"
  if [ -f "$HOME/.config/systemd/user/mirilla.service" ]; then
    XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}; export XDG_RUNTIME_DIR
    service=$(systemctl --user is-active mirilla.service 2>/dev/null)
    fact service_kind user
  elif [ -f "$root/etc/systemd/system/mirilla.service" ]; then
    service=$(systemctl is-active mirilla.service 2>/dev/null)
    fact service_kind system
  fi
  fact service "$service"
fi
# A bonnet in use is left alone: how it reacts to a second client is not known.
case " $joy $service " in *" active "*|*" activating "*) busy=yes ;; *) busy=no ;; esac
if has sudo && sudo -n true >/dev/null 2>&1; then fact sudo yes; else fact sudo no; fi
fact current "$(readlink "$HOME/mirilla/current" 2>/dev/null)"

# Importing takes several seconds on a Pi Zero; the limit also ends the wait for a bonnet that does not answer.
has python3 && limit 60 python3 -u -c '
import sys
print("python=%d.%d.%d" % sys.version_info[:3])
try:
    from aiy.vision import inference
except Exception as error:
    print("aiy=no: " + " ".join(str(error).split()))
    sys.exit()
print("aiy=yes")
try:
    import importlib.util
    print("picamera=" + ("yes" if importlib.util.find_spec("picamera") else "no"))
    if sys.argv[1] == "yes":
        print("firmware=busy")
    else:
        with inference.InferenceEngine() as engine:
            print("firmware=%d.%d" % tuple(engine.get_firmware_info())[:2])
except Exception as error:
    print("firmware=" + " ".join(str(error).split()))
' "$busy" 2>/dev/null </dev/null
exit 0
