# The daemons of the cluster: how each is called, started and stopped. Their pids are those in the sandbox's own pid
# namespace, where no process of anybody else can be hit.
# shellcheck shell=bash

daemons=(etcd containerd apiserver controller-manager scheduler kubelet proxy fake-gpu kwok karpenter)

# daemon_command NAME: sets `command`.
daemon_command() {
  case $1 in
  etcd)
    # State need not outlive the machine: not syncing it makes writes many times faster.
    command=(etcd --name=node1 --data-dir="$state/etcd" --unsafe-no-fsync
      --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379
      --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380
      --initial-cluster=node1=http://127.0.0.1:2380)
    ;;
  containerd)
    command=(containerd --config "$state/config/containerd.toml")
    ;;
  apiserver)
    command=(kube-apiserver --etcd-servers=http://127.0.0.1:2379
      --bind-address=0.0.0.0 --advertise-address="$node_ip" --service-cluster-ip-range="$service_cidr"
      --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key"
      --client-ca-file="$pki/ca.crt" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction
      --allow-privileged --audit-policy-file="$state/config/audit.yaml" --audit-log-path="$state/log/audit.log"
      --audit-log-maxsize=200 --audit-log-maxbackup=1
      --shutdown-send-retry-after # without it, a server told to end waits a minute for its watchers to leave
      --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt"
      --kubelet-client-key="$pki/apiserver-kubelet-client.key"
      --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP
      --service-account-issuer=https://kubernetes.default.svc.cluster.local
      --service-account-key-file="$pki/service-accounts.pub"
      --service-account-signing-key-file="$pki/service-accounts.key"
      --requestheader-client-ca-file="$pki/ca.crt" --requestheader-allowed-names=front-proxy-client
      --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group
      --requestheader-extra-headers-prefix=X-Remote-Extra-
      --proxy-client-cert-file="$pki/front-proxy-client.crt" --proxy-client-key-file="$pki/front-proxy-client.key")
    ;;
  controller-manager)
    # The default 20 requests a second make every test that creates many objects wait for this client.
    command=(kube-controller-manager --kubeconfig="$pki/controller-manager.kubeconfig" --bind-address=127.0.0.1
      --kube-api-qps=300 --kube-api-burst=600 --leader-elect=false --use-service-account-credentials
      --pvclaimbinder-sync-period=1s # instead of 15: how long a claim may wait for its volume
      --service-account-private-key-file="$pki/service-accounts.key" --root-ca-file="$pki/ca.crt"
      --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key"
      --allocate-node-cidrs=false --flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins)
    ;;
  scheduler)
    command=(kube-scheduler --kubeconfig="$pki/scheduler.kubeconfig" --bind-address=127.0.0.1
      --kube-api-qps=300 --kube-api-burst=600 --leader-elect=false)
    ;;
  kubelet)
    command=(kubelet --config="$state/config/kubelet.yaml" --kubeconfig="$pki/kubelet.kubeconfig"
      --hostname-override="$node" --node-ip="$node_ip")
    ;;
  proxy)
    command=(kube-proxy --config="$state/config/kube-proxy.yaml")
    ;;
  fake-gpu)
    command=(fake-gpu nvidia.com/gpu "$state/gpus")
    ;;
  kwok)
    command=(kwok --kubeconfig="$pki/admin.kubeconfig" --config="$programs/kwok-stages.yaml" --manage-all-nodes=false
      --manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake
      --node-lease-duration-seconds=40 --server-address=127.0.0.1:10247)
    ;;
  karpenter)
    command=(env KUBECONFIG="$pki/admin.kubeconfig" SYSTEM_NAMESPACE=kube-system DISABLE_LEADER_ELECTION=true
      METRICS_PORT=10270 HEALTH_PROBE_PORT=10271 INSTANCE_TYPES_FILE_PATH="$here/config/karpenter-instance-types.json"
      karpenter)
    ;;
  *) die "no such daemon: $1 (there are: ${daemons[*]})" ;;
  esac
}

# daemon_pid NAME: its pid in the sandbox, if it runs.
daemon_pid() {
  local pid
  pid=$(cat "$state/run/$1.pid" 2>/dev/null) && [ -n "$pid" ] && inside kill -0 "$pid" 2>/dev/null && echo "$pid"
}

daemon_start() {
  local command
  daemon_command "$1"
  [ -z "$(daemon_pid "$1")" ] || return 0
  rm -f "$state/run/$1.pid"
  # shellcheck disable=SC2016 # expanded by the inner shell, whose pid becomes the daemon's
  setsid nsenter --target "$init_pid" --net --mount --pid -- \
    env -i HOME=/root PATH="$programs:/usr/sbin:/usr/bin:/sbin:/bin" \
    bash -c 'echo $$ >"$0"; exec "$@"' "$state/run/$1.pid" "${command[@]}" </dev/null >>"$state/log/$1.log" 2>&1 9>&- &
}

# daemon_stop NAME [SIGNAL]: returns when it has ended; one that ignores SIGNAL for 30 s is killed.
daemon_stop() {
  local signal
  for signal in "${2:-TERM}" KILL; do
    for _ in {1..300}; do
      [ -n "$(daemon_pid "$1")" ] || return 0
      [ -z "$signal" ] || inside kill "-$signal" "$(cat "$state/run/$1.pid")"
      signal=
      sleep 0.1
    done
  done
  die "$1 does not end"
}
