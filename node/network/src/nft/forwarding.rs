//! Leave to forward, on hosts where another program's chain drops what it does not know: for the bridge, and for
//! node ports whose endpoint is on another host.
//!
//! Docker gives `ip filter FORWARD` the policy "drop", and what one chain drops no other can save. Rules at its
//! head let these packets through, as CNI plugins and kube-proxy do; each carries the instance's table name as its comment
//! (in iptables-nft's form), by which it is found again. A host without that chain needs none. iptables-legacy's
//! chains cannot be reached from here.

use super::expression::{Compare, FIRST, Meta, Rule, Verdict};
use super::message::{self, Batch, CREATE};
use super::table::MASQUERADE_MARK;
use super::{NftError, commit, dump};
use crate::ruleset::Ruleset;

const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const HANDLE: u16 = 3; // NFTA_RULE_HANDLE
const USER_DATA: u16 = 7; // NFTA_RULE_USERDATA

/// Who may pass: what comes from the bridge, what goes to it, and connections that the table sent elsewhere.
const RULES: usize = 3;

/// Lets packets of pods pass, if there is a chain that could stop them.
pub fn allow(rules: &Ruleset) -> Result<(), NftError> {
    match handles(&rules.table)? {
        Some(found) if found.len() != RULES => withdraw(&rules.table)?, // Of an earlier version.
        _ => return Ok(()),
    }
    let mut name = [0; 16];
    name[..rules.bridge.len()].copy_from_slice(rules.bridge.as_bytes());
    let mut batch = Batch::begin();
    let mut add = |body: &dyn Fn(&mut Rule<'_, '_>)| {
        // Without the append flag it comes first.
        batch.message(NEW_RULE, CREATE, format!("a rule of {TABLE} {CHAIN}"), |it| {
            it.text(1, TABLE);
            it.text(2, CHAIN);
            it.nested(4, |it| {
                let mut rule = Rule(it);
                body(&mut rule);
                rule.verdict(Verdict::Accept);
            });
            it.bytes(USER_DATA, &comment(&rules.table));
        });
    };
    for side in [Meta::InputName, Meta::OutputName] {
        add(&|it| {
            it.meta(side, FIRST).compare(FIRST, Compare::Equal, &name);
        });
    }
    let mark = MASQUERADE_MARK;
    add(&|it| {
        it.connection_mark(FIRST).bits(FIRST, mark.to_ne_bytes(), [0; 4]);
        it.compare(FIRST, Compare::Equal, &mark.to_ne_bytes());
    });
    commit(batch, TABLE)
}

/// Takes the instance's rules out of the chain.
pub fn withdraw(table: &str) -> Result<(), NftError> {
    let found = handles(table)?.unwrap_or_default();
    if found.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::begin();
    for handle in found {
        batch.message(DELETE_RULE, 0, format!("delete a rule of {TABLE} {CHAIN}"), |it| {
            it.text(1, TABLE);
            it.text(2, CHAIN);
            it.bytes(HANDLE, &handle);
        });
    }
    commit(batch, TABLE)
}

/// The instance's rules in the chain; `None` if there is no such chain.
pub fn handles(table: &str) -> Result<Option<Vec<Vec<u8>>>, NftError> {
    let request = message::dump_request(GET_RULE, |it| {
        it.text(1, TABLE);
        it.text(2, CHAIN);
    });
    let Some(answers) = dump(&request, TABLE)? else { return Ok(None) };
    let wanted = comment(table);
    let ours = answers.iter().filter_map(|attributes| {
        let find = |kind| attributes.iter().find(|it| it.0 == kind).map(|it| it.1.clone());
        find(HANDLE).filter(|_| find(USER_DATA).as_ref() == Some(&wanted))
    });
    // The kernel answers a chain that is not there with no rules, which needs none of ours either.
    Ok(Some(ours.collect()))
}

/// Type 0 is a comment, then its length with the terminating zero.
fn comment(table: &str) -> Vec<u8> {
    let text = &table.as_bytes()[..table.len().min(200)];
    let len = u8::try_from(text.len() + 1).expect("cut to 200 above");
    [&[0, len][..], text, &[0]].concat()
}
