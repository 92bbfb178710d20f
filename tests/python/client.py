"""The official Python client against a hollow kactor: what scripts and operators written with it do.

Usage: client.py KUBECONFIG SCENARIO, where SCENARIO is the name of a function of SCENARIOS. Exit code 0 when
everything held; a failed assertion ends with a traceback. Waiting is on conditions and bounded by PATIENCE.
"""

import base64
import copy
import json
import os
import sys
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import stream

PATIENCE_SECONDS = 100
NAMESPACE = "python"


def wait_until(what, look):
    """Looks until `look` answers something true; answers it."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_SECONDS} s"
        time.sleep(0.05)


def refused(code, reason, act):
    """Expects an ApiException of this code whose body is a Status with this reason; answers the Status."""
    try:
        act()
    except ApiException as error:
        status = json.loads(error.body)
        assert (error.status, status["code"], status["reason"]) == (code, code, reason), error
        assert status["kind"] == "Status" and status["status"] == "Failure" and status["message"], status
        return status
    raise AssertionError(f"let through, where {code} {reason} is the answer")


def config_map(name, labels=None, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels=labels), data=data)


def pod(name):
    container = client.V1Container(name="app", image="demo:1")
    spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=1)
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name), spec=spec)


def deployment(replicas):
    labels = {"app": "web"}
    container = client.V1Container(name="app", image="demo:1")
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels=labels),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=1),
    )
    spec = client.V1DeploymentSpec(
        replicas=replicas, selector=client.V1LabelSelector(match_labels=labels), template=template
    )
    return client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)


def namespaces_come_with_an_account_and_go_with_what_they_hold():
    core = client.CoreV1Api()
    names = [it.metadata.name for it in core.list_namespace().items]
    assert {"default", "kube-system", NAMESPACE} <= set(names), names
    core.create_namespaced_config_map(NAMESPACE, config_map("kept", x="1"))
    core.delete_namespace(NAMESPACE)
    gone = lambda: NAMESPACE not in [it.metadata.name for it in core.list_namespace().items]
    wait_until("the namespace goes", gone)
    refused(404, "NotFound", lambda: core.read_namespaced_config_map("kept", NAMESPACE))


def config_maps_and_secrets_are_created_read_replaced_and_deleted():
    core = client.CoreV1Api()
    made = core.create_namespaced_config_map(NAMESPACE, config_map("c", x="1"))
    assert made.metadata.uid and made.metadata.creation_timestamp.tzinfo is not None
    made.data["y"] = "2"
    replaced = core.replace_namespaced_config_map("c", NAMESPACE, made)
    assert replaced.data == {"x": "1", "y": "2"}
    assert replaced.metadata.resource_version != made.metadata.resource_version
    again = core.read_namespaced_config_map("c", NAMESPACE)
    assert again == replaced
    secret = client.V1Secret(metadata=client.V1ObjectMeta(name="s"), string_data={"password": "p"})
    stored = core.create_namespaced_secret(NAMESPACE, secret)
    assert base64.b64decode(stored.data["password"]) == b"p" and stored.string_data is None
    assert stored.type == "Opaque"
    core.delete_namespaced_secret("s", NAMESPACE)
    refused(404, "NotFound", lambda: core.read_namespaced_secret("s", NAMESPACE))
    core.delete_collection_namespaced_config_map(NAMESPACE, field_selector="metadata.name=c")
    left = [it.metadata.name for it in core.list_namespaced_config_map(NAMESPACE).items]
    assert "c" not in left, left


def lists_come_in_pages_of_one_moment():
    core = client.CoreV1Api()
    for index in range(7):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"c{index}", {"page": "yes"}))
    names, token, revisions, left = [], None, set(), []
    while True:
        page = core.list_namespaced_config_map(
            NAMESPACE, limit=3, _continue=token, label_selector="page=yes"
        )
        assert len(page.items) <= 3
        names += [it.metadata.name for it in page.items]
        revisions.add(page.metadata.resource_version)
        left.append(page.metadata.remaining_item_count)
        if not names[3:]:
            # Later than the first page, so not in any page.
            core.create_namespaced_config_map(NAMESPACE, config_map("c9", {"page": "yes"}))
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"c{index}" for index in range(7)], names
    assert len(revisions) == 1, revisions
    assert left == [None, None, None], "with a selector no count is promised"
    refused(400, "BadRequest", lambda: core.list_namespaced_config_map(NAMESPACE, limit=1, _continue="no"))


def a_watch_follows_from_a_revision_and_goes_on_after_a_break():
    core = client.CoreV1Api()
    since = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("a", {"w": "yes"}, x="1"))
    core.patch_namespaced_config_map("a", NAMESPACE, {"data": {"x": "2"}})
    core.delete_namespaced_config_map("a", NAMESPACE)
    follow = watch.Watch()
    seen = []
    for event in follow.stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=since, label_selector="w=yes"
    ):
        seen.append((event["type"], event["object"].data["x"]))
        if event["type"] == "DELETED":
            follow.stop()
    assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], seen
    # The server ends a watch at its timeout; the next one starts where that one stood, with no gap and no repetition.
    short = watch.Watch()
    nothing = list(
        short.stream(core.list_namespaced_config_map, NAMESPACE, label_selector="w=yes",
                     resource_version=follow.resource_version, timeout_seconds=1)
    )
    assert nothing == [], nothing
    core.create_namespaced_config_map(NAMESPACE, config_map("b", {"w": "yes"}, x="1"))
    for event in short.stream(
        core.list_namespaced_config_map, NAMESPACE, label_selector="w=yes",
        resource_version=follow.resource_version,
    ):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "b"), event
        short.stop()


def patched(kind, body, **options):
    """Sends a patch with its media type, as the generated methods choose it by the body's form only."""
    api = client.ApiClient()
    api.set_default_header("Content-Type", kind)
    return client.AppsV1Api(api).patch_namespaced_deployment("web", NAMESPACE, body, **options)


def each_type_of_patch_does_what_it_is_for():
    apps = client.AppsV1Api()
    apps.create_namespaced_deployment(NAMESPACE, deployment(0))
    spec = lambda it: it.spec.template.spec
    strategic = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}}
    images = lambda it: {c.name: c.image for c in spec(it).containers}
    merged = patched("application/strategic-merge-patch+json", strategic)
    assert images(merged) == {"app": "demo:1", "side": "side:1"}, images(merged)
    merge = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "demo:2"}]}}}}
    merged = patched("application/merge-patch+json", merge)
    assert images(merged) == {"app": "demo:2"}, images(merged)
    steps = [
        {"op": "test", "path": "/spec/replicas", "value": 0},
        {"op": "add", "path": "/metadata/labels", "value": {"a/b": "1"}},
        {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "demo:3"},
    ]
    merged = patched("application/json-patch+json", steps)
    assert images(merged) == {"app": "demo:3"} and merged.metadata.labels == {"a/b": "1"}
    steps[0]["value"] = 5
    refused(422, "Invalid", lambda: patched("application/json-patch+json", steps))
    applied = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"template": {"spec": {"containers": [{"name": "app", "image": "demo:4"}]}}},
    }
    apply = lambda **options: patched("application/apply-patch+yaml", applied, field_manager="python", **options)
    status = refused(409, "Conflict", apply)
    causes = status["details"]["causes"]
    assert {it["reason"] for it in causes} == {"FieldManagerConflict"}, causes
    assert causes[0]["field"] == '.spec.template.spec.containers[name="app"].image', causes
    assert images(apply(force=True)) == {"app": "demo:4"}
    managers = {it.manager: it.operation for it in apps.read_namespaced_deployment("web", NAMESPACE).metadata.managed_fields}
    assert managers["python"] == "Apply", managers
    dry = patched("application/merge-patch+json", {"spec": {"replicas": 9}}, dry_run="All")
    assert dry.spec.replicas == 9
    assert apps.read_namespaced_deployment("web", NAMESPACE).spec.replicas == 0


def a_deployment_rolls_out_scales_and_goes():
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    apps.create_namespaced_deployment(NAMESPACE, deployment(2))
    available = lambda: apps.read_namespaced_deployment_status("web", NAMESPACE).status.available_replicas
    wait_until("two are available", lambda: available() == 2)
    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    assert (scale.spec.replicas, scale.status.selector) == (2, "app=web"), scale
    apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 3}})
    wait_until("three are available", lambda: available() == 3)
    pods = core.list_pod_for_all_namespaces(label_selector="app=web", field_selector="status.phase=Running")
    assert len(pods.items) == 3, pods
    victim = pods.items[0].metadata.name
    core.create_namespaced_pod_eviction(
        victim, NAMESPACE, client.V1Eviction(metadata=client.V1ObjectMeta(name=victim, namespace=NAMESPACE))
    )
    names = lambda: {it.metadata.name for it in core.list_namespaced_pod(NAMESPACE, label_selector="app=web").items}
    wait_until("another takes its place", lambda: victim not in names() and len(names()) == 3)
    apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")
    wait_until("the pods go", lambda: not names())


def ready(core, name):
    def look():
        conditions = core.read_namespaced_pod(name, NAMESPACE).status.conditions or []
        return any(it.type == "Ready" and it.status == "True" for it in conditions)

    wait_until(f"{name} is ready", look)


def a_pod_has_logs_and_takes_commands():
    core = client.CoreV1Api()
    core.create_namespaced_pod(NAMESPACE, pod("p"))
    ready(core, "p")
    assert core.read_namespaced_pod_log("p", NAMESPACE) == "app pretends to run demo:1\n"
    follow = watch.Watch()
    for line in follow.stream(core.read_namespaced_pod_log, "p", NAMESPACE):
        assert line == "app pretends to run demo:1", line
        follow.stop()
    # A hollow container runs no command; the refusal comes before the WebSocket and says why.
    options = dict(command=["echo", "hello"], stdout=True, stderr=True, stdin=False, tty=False)
    for act in [core.connect_get_namespaced_pod_exec, core.connect_post_namespaced_pod_exec]:
        try:
            said = stream(act, "p", NAMESPACE, **options)
        except ApiException as error:
            assert "its containers only pretend to run" in error.reason, error
        else:
            raise AssertionError(f"a hollow container said {said!r}")
    options["container"] = "none"
    try:
        stream(core.connect_get_namespaced_pod_exec, "p", NAMESPACE, **options)
    except ApiException as error:
        assert "400 Bad Request" in error.reason and "container none is not valid" in error.reason, error
    else:
        raise AssertionError("a container that is not there took a command")
    core.delete_namespaced_pod("p", NAMESPACE)
    wait_until("the pod goes", lambda: not core.list_namespaced_pod(NAMESPACE).items)


def the_dynamic_client_finds_kinds_by_discovery():
    found = dynamic.DynamicClient(client.ApiClient())
    services = found.resources.get(api_version="v1", kind="Service")
    body = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    made = services.create(body=body, namespace=NAMESPACE)
    assert made.spec.clusterIP, made
    assert services.get(name="web", namespace=NAMESPACE).spec.ports[0].targetPort == 8080
    body["metadata"]["labels"] = {"applied": "yes"}
    applied = services.server_side_apply(
        body=body, namespace=NAMESPACE, field_manager="dynamic", force_conflicts=True
    )
    assert applied.metadata.labels.applied == "yes"
    assert len(services.get(namespace=NAMESPACE, label_selector="applied=yes").items) == 1
    services.delete(name="web", namespace=NAMESPACE)
    for group in ["apps/v1", "rbac.authorization.k8s.io/v1", "coordination.k8s.io/v1", "discovery.k8s.io/v1"]:
        assert [it for it in found.resources.search(api_version=group)], group
    try:
        found.resources.get(api_version="nothing.example.com/v1", kind="Thing")
    except dynamic.exceptions.ResourceNotFoundError:
        return
    raise AssertionError("a kind was found that is not served")


class Candidate:
    """Runs for a lease in a thread of its own and notes when it leads and when it stops."""

    def __init__(self, name):
        self.leads, self.stopped = threading.Event(), threading.Event()
        self.release = threading.Event()
        self.lock = LeaseLock("leader", NAMESPACE, name)
        self.thread = threading.Thread(target=self.run, daemon=True)

    def lead(self):
        self.leads.set()

    def run(self):
        settings = electionconfig.Config(
            self.lock, lease_duration=4, renew_deadline=3, retry_period=1,
            onstarted_leading=self.lead, onstopped_leading=self.stopped.set,
        )
        leaderelection.LeaderElection(settings).run()


def one_leader_at_a_time_holds_a_lease():
    leases = client.CoordinationV1Api()
    first, second = Candidate("first"), Candidate("second")
    first.thread.start()
    assert first.leads.wait(PATIENCE_SECONDS), "nobody leads"
    second.thread.start()
    holder = lambda: leases.read_namespaced_lease("leader", NAMESPACE).spec
    renewed = holder().renew_time
    wait_until("the lease is renewed", lambda: holder().renew_time > renewed)
    assert holder().holder_identity == "first" and not second.leads.is_set()
    # The first can no longer write: it gives up by itself, and the second takes over.
    first.lock.update = lambda *_: False
    assert first.stopped.wait(PATIENCE_SECONDS), "it goes on leading without renewing"
    assert second.leads.wait(PATIENCE_SECONDS), "nobody takes over"
    assert holder().holder_identity == "second"


def refusals_are_exceptions_with_code_reason_and_status():
    core = client.CoreV1Api()
    status = refused(404, "NotFound", lambda: core.read_namespaced_pod("none", NAMESPACE))
    assert status["details"] == {"name": "none", "kind": "pods"}, status
    assert status["message"] == 'pods "none" not found', status
    core.create_namespaced_config_map(NAMESPACE, config_map("c"))
    status = refused(409, "AlreadyExists", lambda: core.create_namespaced_config_map(NAMESPACE, config_map("c")))
    assert status["message"] == 'configmaps "c" already exists', status
    first = core.read_namespaced_config_map("c", NAMESPACE)
    second = copy.deepcopy(first)
    second.data = {"x": "1"}
    core.replace_namespaced_config_map("c", NAMESPACE, second)
    first.data = {"x": "2"}
    refused(409, "Conflict", lambda: core.replace_namespaced_config_map("c", NAMESPACE, first))
    bad = pod("Bad_Name")
    status = refused(422, "Invalid", lambda: core.create_namespaced_pod(NAMESPACE, bad))
    assert status["details"]["causes"][0]["field"] == "metadata.name", status
    configs = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="v1", kind="ConfigMap")
    strange = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c2"}, "strange": 1}
    strict = [("fieldValidation", "Strict")]
    status = refused(400, "BadRequest", lambda: configs.create(strange, NAMESPACE, query_params=strict))
    assert 'unknown field "strange"' in status["message"], status
    nobody = client.Configuration.get_default_copy()
    nobody.cert_file = nobody.key_file = None
    nobody.api_key = {"authorization": "Bearer nonsense"}
    refused(401, "Unauthorized", lambda: client.CoreV1Api(client.ApiClient(nobody)).list_namespace())
    token = core.create_namespaced_service_account_token(
        "default", NAMESPACE, client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
    )
    nobody.api_key = {"authorization": f"Bearer {token.status.token}"}
    status = refused(403, "Forbidden", lambda: client.CoreV1Api(client.ApiClient(nobody)).list_node())
    who = f'User "system:serviceaccount:{NAMESPACE}:default" cannot list resource "nodes"'
    assert who in status["message"], status


SCENARIOS = [
    namespaces_come_with_an_account_and_go_with_what_they_hold,
    config_maps_and_secrets_are_created_read_replaced_and_deleted,
    lists_come_in_pages_of_one_moment,
    a_watch_follows_from_a_revision_and_goes_on_after_a_break,
    each_type_of_patch_does_what_it_is_for,
    a_deployment_rolls_out_scales_and_goes,
    a_pod_has_logs_and_takes_commands,
    the_dynamic_client_finds_kinds_by_discovery,
    one_leader_at_a_time_holds_a_lease,
    refusals_are_exceptions_with_code_reason_and_status,
]


def main():
    kubeconfig, wanted = sys.argv[1:]
    scenario = {it.__name__: it for it in SCENARIOS}[wanted]
    config.load_kube_config(config_file=kubeconfig)
    core = client.CoreV1Api()
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    account = lambda: [it.metadata.name for it in core.list_namespaced_service_account(NAMESPACE).items]
    wait_until("the default service account comes", lambda: "default" in account())
    scenario()
    print(f"{wanted}: held", flush=True)
    # A leader's thread runs on; Python's own way out can trip over what it prints meanwhile.
    os._exit(0)


if __name__ == "__main__":
    main()
