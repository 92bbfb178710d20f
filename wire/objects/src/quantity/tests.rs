//! Vectors from upstream's quantity_test.go (as facts), and properties.

use super::*;
use proptest::prelude::*;

fn canonical(text: &str) -> String {
    match text.parse::<Quantity>() {
        Ok(it) => it.to_string(),
        Err(why) => format!("{why:?}"),
    }
}

#[test]
fn quantities_print_canonically() {
    for (given, printed) in [
        ("0", "0"),
        ("0n", "0"),
        ("-0", "0"),
        ("0Ki", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("-1", "-1"),
        ("001", "1"),
        ("1000m", "1"),
        ("100m", "100m"),
        ("0.1", "100m"),
        (".5", "500m"),
        ("1.", "1"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("1000", "1k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Mi", "512Ki"),
        ("1023Ki", "1023Ki"),
        ("512", "512"),
        ("0.5Ki", "512"),
        ("100Mi", "100Mi"),
        ("128974848", "128974848"),
        ("129e6", "129e6"),
        ("129M", "129M"),
        ("123e3", "123e3"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12E", "12E"),
        ("1e-3", "1e-3"),
        ("100e-3", "100e-3"),
        ("1e0", "1"),
        ("0.0000000001", "1n"),
        ("1.0000000001", "1000000001n"),
        ("-0.0000000001", "-1n"),
        ("0.5i", "Suffix"),
        ("1u", "1u"),
        ("1000u", "1m"),
        ("9Ei", "9223372036854775807"),
    ] {
        assert_eq!(canonical(given), printed, "{given}");
    }
}

#[test]
fn texts_that_are_no_quantities_are_refused() {
    for (given, why) in [
        ("", QuantityError::Format),
        ("abc", QuantityError::Format),
        ("1.1.1", QuantityError::Format),
        ("1 Mi", QuantityError::Format),
        ("1mi", QuantityError::Suffix),
        ("1K", QuantityError::Suffix),
        ("1Km", QuantityError::Suffix),
        ("1e", QuantityError::Suffix),
        ("1e1.5", QuantityError::Format),
        ("+", QuantityError::Number),
        (".", QuantityError::Number),
        ("Mi", QuantityError::Format),
        ("١", QuantityError::Format),
    ] {
        assert_eq!(given.parse::<Quantity>().map(|it| it.to_string()), Err(why), "{given:?}");
    }
    let long = "1".repeat(QUANTITY_BYTES_MAX + 1);
    assert_eq!(long.parse::<Quantity>().map(|it| it.to_string()), Err(QuantityError::Format));
}

#[test]
fn order_and_equality_look_at_the_amount_only() {
    let q = |text: &str| text.parse::<Quantity>().expect(text);
    assert_eq!(q("1"), q("1000m"));
    assert_eq!(q("1Ki"), q("1024"));
    assert!(q("1k") < q("1Ki"));
    assert!(q("-1") < q("0"));
    assert!(q("1Gi") > q("1G"));
}

#[test]
fn sums_keep_the_first_format_unless_it_is_zero() {
    let q = |text: &str| text.parse::<Quantity>().expect(text);
    assert_eq!(q("1Gi").plus(q("1M")).to_string(), "1074741824");
    assert_eq!(q("1Gi").plus(q("1Gi")).to_string(), "2Gi");
    assert_eq!(Quantity::ZERO.plus(q("1Gi")).to_string(), "1Gi");
    assert_eq!(q("1").minus(q("1500m")).to_string(), "-500m");
    assert_eq!(q("9E").plus(q("9E")).value(), i64::MAX, "saturates");
}

#[test]
fn values_round_away_from_zero() {
    let q = |text: &str| text.parse::<Quantity>().expect(text);
    assert_eq!(q("1m").value(), 1);
    assert_eq!(q("-1m").value(), -1);
    assert_eq!(q("1n").milli_value(), 1);
    assert_eq!(q("1500u").rounded_to_milli().to_string(), "2m");
    assert_eq!(q("2").milli_value(), 2000);
}

#[test]
fn json_numbers_are_quantities_too() {
    use serde_json::json;
    assert_eq!(of_json(&json!(1.5)).map(|it| it.to_string()), Ok("1500m".to_owned()));
    assert_eq!(of_json(&json!(" 2Gi ")).map(|it| it.to_string()), Ok("2Gi".to_owned()));
    assert_eq!(of_json(&json!(true)).map(|it| it.to_string()), Err(QuantityError::Format));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_without_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<Quantity>();
    }

    #[test]
    fn the_canonical_form_is_a_fixed_point(
        text in "[+-]?[0-9]{0,20}(\\.[0-9]{0,25})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e-?[0-9]{1,3})",
    ) {
        if let Ok(first) = text.parse::<Quantity>() {
            let printed = first.to_string();
            let again: Quantity = printed.parse().expect("what was printed parses");
            prop_assert_eq!(again, first, "{} -> {}", text, printed);
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn sums_of_whole_numbers_are_sums(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
        let (x, y) = (Quantity::from_units(a, Format::DecimalSi), Quantity::from_units(b, Format::DecimalSi));
        prop_assert_eq!(x.plus(y).value(), a + b);
        prop_assert_eq!(x.minus(y).value(), a - b);
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }
}
