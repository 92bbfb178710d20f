//! The checker against histories whose answer is known, and against a search that tries everything.

use super::*;

fn call(op: Op, from: u64, until: u64) -> Call {
    let at = Duration::from_millis;
    Call { op, from: at(from), until: (until > 0).then(|| at(until)) }
}

fn w(value: u64, from: u64, until: u64) -> Call {
    call(Op::Write(value), from, until)
}

fn r(value: u64, from: u64, until: u64) -> Call {
    call(Op::Read((value > 0).then_some(value)), from, until)
}

fn is_fine(history: &[Call]) -> bool {
    match check(history) {
        Verdict::Linearizable => true,
        Verdict::Broken { .. } => false,
        Verdict::TooLarge => panic!("too large"),
    }
}

#[test]
fn what_one_client_does_after_the_other_is_judged_by_values() {
    assert!(is_fine(&[]));
    assert!(is_fine(&[r(0, 1, 2), w(1, 3, 4), r(1, 5, 6)]));
    assert!(!is_fine(&[w(1, 3, 4), r(0, 5, 6)]), "an acknowledged write is lost");
    assert!(!is_fine(&[r(1, 1, 2), w(1, 3, 4)]), "a read of the future");
    assert!(!is_fine(&[r(7, 1, 2)]), "nobody wrote it");
}

#[test]
fn reads_never_go_back_in_time() {
    let writes = [w(1, 1, 2), w(2, 3, 9)];
    let history = |reads: &[Call]| [&writes[..], reads].concat();
    assert!(is_fine(&history(&[r(1, 4, 5), r(2, 6, 7)])));
    assert!(!is_fine(&history(&[r(2, 4, 5), r(1, 6, 7)])), "new, then old");
    assert!(is_fine(&history(&[r(2, 4, 6), r(1, 5, 7)])), "concurrent reads may differ");
}

#[test]
fn a_write_of_unknown_outcome_takes_effect_late_or_never() {
    let unknown = w(2, 3, 0);
    assert!(is_fine(&[w(1, 1, 2), unknown.clone(), r(1, 5, 6)]));
    assert!(is_fine(&[w(1, 1, 2), unknown.clone(), r(1, 5, 6), r(2, 7, 8)]));
    assert!(!is_fine(&[w(1, 1, 2), unknown.clone(), r(2, 5, 6), r(1, 7, 8)]), "once, not twice");
    assert!(!is_fine(&[w(1, 1, 2), r(2, 2, 2), unknown]), "not before it began");
}

/// Tries every order.
fn brute(history: &[Call], placed: u32, value: Value) -> bool {
    let open = (0..history.len()).filter(|it| placed & (1 << it) == 0);
    if open.clone().all(|it| history[it].until.is_none()) {
        return true;
    }
    let earliest = open.clone().filter_map(|it| history[it].until).min().unwrap_or(Duration::MAX);
    open.clone().any(|it| {
        let call = &history[it];
        let after = match call.op {
            Op::Write(value) => Some(value),
            Op::Read(read) if read == value => value,
            Op::Read(_) => return false,
        };
        call.from <= earliest && brute(history, placed | 1 << it, after)
    })
}

#[test]
fn it_agrees_with_a_search_that_tries_every_order() {
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut fine = 0;
    for _ in 0..20_000 {
        let history: Vec<Call> = (1..=6)
            .map(|value| {
                let from = random(12) + 1;
                let until = from + random(6);
                match random(5) {
                    0 | 1 => w(value, from, until),
                    2 => w(value, from, 0),
                    _ => r(random(7), from, until),
                }
            })
            .collect();
        let expected = brute(&history, 0, None);
        fine += u32::from(expected);
        assert_eq!(is_fine(&history), expected, "{history:#?}");
    }
    assert!((2_000..18_000).contains(&fine), "both answers come often: {fine}");
}

#[test]
fn long_histories_of_many_clients_are_judged_quickly() {
    // 8 clients, each write overlaps its neighbours; every tenth write stays unknown and is seen late.
    let mut history = Vec::new();
    for step in 0..1_000_u64 {
        let from = step * 10;
        let until = if step % 10 == 9 { 0 } else { from + 35 };
        history.push(w(step + 1, from, until));
        history.push(r(step + 1, from + 36, from + 37));
    }
    // Writes follow each other by their ends: 1 is placed before 2, and so on; a read sees the newest placed.
    for it in history.iter_mut().filter(|it| matches!(it.op, Op::Read(_))) {
        it.from -= Duration::from_millis(27);
        it.until = Some(it.from + Duration::from_millis(1));
    }
    assert!(is_fine(&history));
    history.push(r(5, 50_000, 50_001));
    assert!(!is_fine(&history), "an old value at the end");
}
