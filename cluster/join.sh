#!/bin/sh
# Make this machine a worker of the head at ADDRESS. `ray up` does so; you may, while jobs run:
#   sh ~/tenfold/cluster/join.sh ADDRESS
set -eu
head=$1
log=~/ray-worker.log

export PATH=~/tenfold-venv/bin:$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# Macs refuse to join without.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=1
chmod 600 ~/.ray/auth_token
ulimit -n 65536 2> /dev/null || ulimit -n "$(ulimit -Hn)"

# CUDA work asks for `cuda` and MLX work for `mlx`, so that neither lands on the wrong machine,
# whatever GPU Ray believes to see: it takes that of an M1 for one.
resources=$(tenfold node-resources)
# A machine with Wi-Fi, cable or VPN has several addresses, and a Mac would give its loopback.
address=$(python -m cluster.resources "$head")

# Ray gives up after 30 s, which a busy or sleepy machine may need.
for _ in 1 2 3; do
    ray stop
    : > "$log"
    # --block: the command stays, and ends all of Ray here once the raylet is gone. Without it a
    # worker whose head has left keeps a process for ever.
    # No --object-store-memory: Ray takes 30 % of the memory, on a Mac at most 2 GiB; more it
    # refuses there unless RAY_ENABLE_MAC_LARGE_OBJECT_STORE=1, and is slow.
    nohup ray start --block --address="$head:6379" --node-ip-address="$address" \
        --resources="$resources" > "$log" 2>&1 < /dev/null &
    while kill -0 $! 2> /dev/null; do
        if grep -q "Ray runtime started" "$log"; then
            echo "joined $head as $address, with $resources"
            exit 0
        fi
        sleep 1
    done
    cat "$log"
    ! grep -q "Version mismatch" "$log" || break
done
echo "cannot join $head: see above" >&2
exit 1
