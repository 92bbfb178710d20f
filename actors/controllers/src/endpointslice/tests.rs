//! Tables: which endpoints a Service has, and which slices change for one Pod.

use kactor_view::fixture::key_of;
use serde_json::{Value, json};

use super::EndpointSliceController;
use crate::controller::Controller;
use crate::plan::{Plan, Request};
use crate::testing::{self, Life};

fn plan(cluster: &str) -> Plan {
    testing::plan(&EndpointSliceController, cluster, 10)
}

fn created(plan: &Plan) -> Vec<&Value> {
    let body = |it: &'_ crate::plan::Effect| match &it.request {
        Request::Create { .. } => true,
        other => panic!("not a create: {other:?}"),
    };
    plan.effects
        .iter()
        .filter(|it| body(it))
        .map(|it| match &it.request {
            Request::Create { body } => body,
            _ => unreachable!(),
        })
        .collect()
}

#[test]
fn endpoints_say_ready_serving_and_terminating() {
    let plan = plan(
        "
svc/web  port=http:80:web        <- subject
node/n1  zone=z1
pod/a    app=web ip=10.0.0.1 ready node=n1 port=web:8080
pod/b    app=web ip=10.0.0.2 phase=Running port=web:8080
pod/c    app=web ip=10.0.0.3 ready deleting=5 port=web:8080
pod/d    app=web phase=Pending port=web:8080
pod/e    app=web ip=10.0.0.5 phase=Succeeded port=web:8080
",
    );
    let [slice] = created(&plan)[..] else { panic!("{plan}") };
    let seen: Vec<_> = slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let told = ["ready", "serving", "terminating"].map(|at| it["conditions"][at] == true);
            (it["addresses"][0].as_str().unwrap(), told)
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("10.0.0.1", [true, true, false]),
            ("10.0.0.2", [false, false, false]),
            ("10.0.0.3", [false, true, true]),
        ]
    );
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(slice["endpoints"][0]["zone"], "z1");
    assert_eq!(slice["metadata"]["labels"]["kubernetes.io/service-name"], "web");
}

#[test]
fn unready_addresses_are_published_on_demand() {
    let plan = plan("svc/web headless notready port=80 <- subject\npod/a app=web ip=10.0.0.1");
    let [slice] = created(&plan)[..] else { panic!("{plan}") };
    assert_eq!(slice["endpoints"][0]["conditions"]["ready"], true);
    assert_eq!(slice["metadata"]["labels"]["service.kubernetes.io/headless"], "");
}

#[test]
fn pods_with_other_numbers_for_a_named_port_get_slices_of_their_own() {
    let plan = plan(
        "
svc/web  port=http:80:web        <- subject
pod/a    app=web ip=10.0.0.1 ready port=web:8080
pod/b    app=web ip=10.0.0.2 ready port=web:9090
",
    );
    assert_eq!(created(&plan).len(), 2);
}

#[test]
fn services_without_a_selector_are_left_alone() {
    assert!(plan("svc/web bare port=80 <- subject").is_empty());
}

#[test]
fn a_service_nobody_serves_has_one_empty_slice() {
    let mut life = Life::new("svc/web port=80");
    life.settle(&EndpointSliceController);
    let slices = life.field("endpointslices", "/endpoints");
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].1, json!([]));
}

#[test]
fn many_pods_fill_slices_and_one_change_touches_one() {
    let mut life = Life::new("svc/web port=80");
    for n in 0..230 {
        life.world.line(&format!("pod/p{n} app=web ip=10.0.{}.{} ready", n / 200, n % 200));
    }
    life.settle(&EndpointSliceController);
    let sizes = |life: &Life| {
        let all = life.field("endpointslices", "/endpoints");
        let mut sizes: Vec<_> = all.iter().map(|it| it.1.as_array().unwrap().len()).collect();
        sizes.sort_unstable();
        sizes
    };
    assert_eq!(sizes(&life), [30, 100, 100]);
    life.log.clear();
    life.world.delete(&key_of("pod/p7"));
    life.pass(&EndpointSliceController, &key_of("svc/web"));
    assert_eq!(sizes(&life), [30, 99, 100]);
    assert_eq!(life.log.len(), 1);
    assert_eq!(life.log[0].lines().count(), 1, "{}", life.log[0]);
}

#[test]
fn a_pod_wakes_the_services_that_select_it() {
    let mut world = kactor_view::fixture::parse("svc/web\nsvc/db");
    let changed = world.line("pod/a app=web");
    assert_eq!(EndpointSliceController.wakes(&changed, world.view()), [key_of("svc/web")]);
}
