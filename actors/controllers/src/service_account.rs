//! Service-account controller: every open Namespace has a ServiceAccount `default`.

use kactor_protocol::store::Key;
use kactor_view::{Changed, ClusterView, Object};
use serde_json::json;

use crate::controller::{Controller, NoMemory, Pass};
use crate::namespace::{is_open, metadata, namespace_key};
use crate::plan::Plan;

const NAME: &str = "default";

pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    const NAME: &'static str = "service-account-controller";
    type Memory = NoMemory;

    fn wakes(&self, changed: &Changed, _: &ClusterView) -> Vec<Key> {
        match changed.object() {
            Some(Object::Namespace(namespace)) => vec![namespace.meta.key.clone()],
            Some(_)
                if changed.key.resource() == "serviceaccounts" && changed.key.name() == NAME =>
            {
                vec![namespace_key(changed.key.namespace())]
            }
            _ => Vec::new(),
        }
    }

    fn reconcile(&self, pass: &Pass<'_>, _: &mut NoMemory) -> Plan {
        let mut plan = Plan::new();
        let Some(namespace) = pass.view.namespaces().get(pass.key).filter(|it| is_open(it)) else {
            return plan;
        };
        let key = Key::new("", "serviceaccounts", namespace.meta.name(), NAME)
            .expect("made from a name that is stored");
        if pass.view.meta(&key).is_none() {
            let body = json!({
                "apiVersion": "v1",
                "kind": "ServiceAccount",
                "metadata": metadata(namespace, NAME),
            });
            plan.create(key, body);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, Life};
    use expect_test::expect;
    use kactor_view::fixture::key_of;

    #[test]
    fn a_namespace_gets_its_account_and_gets_it_back() {
        let mut life = Life::new("ns/shop");
        life.settle(&ServiceAccountController);
        assert!(life.world.body(&key_of("sa/shop/default")).is_some());
        let gone = life.world.delete(&key_of("sa/shop/default"));
        let woken = ServiceAccountController.wakes(&gone, life.world.view());
        assert_eq!(woken, [namespace_key("shop")]);
        life.settle(&ServiceAccountController);
        assert!(life.world.body(&key_of("sa/shop/default")).is_some());
    }

    #[test]
    fn a_terminating_namespace_gets_nothing() {
        let plan = testing::plan(&ServiceAccountController, "ns/shop deleting=1 <- subject", 5);
        expect![""].assert_eq(&plan.to_string());
    }
}
