//! Numbers keep their value: what is read of a text, what is written of it, and how two of them compare.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cmp::Ordering;

use cases::config;
use fraiseql_subs_engine::value::{Decimal, MAX_DIGITS, Value, ValueError, number};
use proptest::prelude::*;

#[path = "common/cases.rs"]
mod cases;

fn decimal(text: &str) -> Decimal {
    Decimal::parse(text).unwrap_or_else(|| panic!("{text} is a number"))
}

fn parsed(text: &str) -> Value {
    Value::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn numbers_are_told_apart_and_have_an_order() {
    let ascending = [
        "-1e400",
        "-1.5e1",
        "-1.5",
        "-1e-400",
        "-1e-99999999999999999",
        "0",
        "1e-99999999999999999",
        "1e-400",
        "0.05",
        "0.1",
        "0.10000000000000000001",
        "1",
        "1.05",
        "10",
        "9007199254740996.0",
        "9007199254740997",
        "9007199254740997.5",
        "18446744073709551616",
        "1e39",
        "1e40",
        "1e41",
        "1e400",
        "1e99999999999999999",
    ];
    let numbers = ascending.map(|text| number(text).unwrap());
    for (at, one) in numbers.iter().enumerate() {
        for (other_at, other) in numbers.iter().enumerate() {
            assert_eq!(one == other, at == other_at, "{one:?} {other:?}");
            assert_eq!(one.canonical() == other.canonical(), at == other_at, "{one:?} {other:?}");
            let (left, right) = (one.as_decimal().unwrap(), other.as_decimal().unwrap());
            let order = at.cmp(&other_at);
            assert_eq!((left.cmp(&right), left.partial_cmp(&right)), (order, Some(order)), "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_number_has_one_text_which_is_json() {
    for (given, canonical) in [
        ("-0.0", "0"),
        ("1.50e1", "15"),
        ("-12.50", "-12.5"),
        ("1e39", &format!("1{}", "0".repeat(39))),
        ("1e40", "1e40"),
        ("-123e400", "-1.23e402"),
        ("-1e-3", "-0.001"),
        ("12e-7", "0.0000012"),
        ("12e-8", "1.2e-7"),
    ] {
        assert_eq!(decimal(given).to_string(), canonical);
        assert_eq!(parsed(given).canonical(), canonical);
        assert_eq!(decimal(canonical), decimal(given));
    }
}

#[test]
fn what_is_no_number_is_none() {
    let far = ["1e100000000000000001", "1e-100000000000000001", "0e99999999999999999999", "1e99999999999999999999"];
    for text in
        ["", "-", "--1", "+1", ".5", "5.", "e5", "1x", "0x1", "1.x", "01", "-01.5", "1e", "1e+", "1_0", " 1", "."]
    {
        assert_eq!(Decimal::parse(text), None, "{text}");
    }
    for text in
        ["", "-", "+", "--1", "+-1", "e5", "1x", "1e", "1e+", "1e+-1", "1_0", " 1", "1 ", ".", "-.", "NaN", "inf", "１"]
    {
        assert_eq!(Decimal::parse_text(text), None, "{text}");
    }
    for text in far {
        assert_eq!((Decimal::parse(text), Decimal::parse_text(text), number(text)), (None, None, None), "{text}");
        let error = Value::parse(format!(r#"{{"a":[1,{text}]}}"#).as_bytes());
        assert!(matches!(&error, Err(ValueError::Syntax(error)) if error.contains("out of range")), "{error:?}");
    }
    for (text, same) in [("+1", "1"), (".5", "0.5"), ("5.", "5"), ("-.5E+1", "-5"), ("007", "7"), ("-0", "0")] {
        assert_eq!(Decimal::parse_text(text), Some(decimal(same)), "{text}");
    }
}

#[test]
fn a_float_is_made_only_of_what_it_holds() {
    for (text, float) in [
        ("0.1", 0.1),
        ("0.30000000000000004", 0.300_000_000_000_000_04),
        ("1.500000000000000000000", 1.5),
        ("1E+2", 100.0),
        ("5e-324", 5e-324),
        ("1.7976931348623157e308", f64::MAX),
        ("123456789012345680000.0", 123_456_789_012_345_680_000.0),
        ("-123456789.0123456", -123_456_789.012_345_6),
    ] {
        assert!(matches!(parsed(text), Value::Float(found) if found == float), "{text}: {:?}", parsed(text));
    }
    for text in [
        "12345678901.123456789",
        "0.10000000000000001",
        "4.9e-324",
        "1e-400",
        "1e400",
        "1.7976931348623158e308",
        "9007199254740993.0",
        "1152921504606846976.0",
        "3.14159265358979323846264338327950288",
    ] {
        let around = format!(r#"{{"s":"0.1000000000000000055, \\\" 1e400","f":0.1,"n":[{text},1]}}"#);
        let Some(Value::List(found)) = parsed(&around).get("n").cloned() else { panic!("{around}") };
        let [Value::Number(found), Value::Int(1)] = &found[..] else { panic!("{found:?}") };
        // serde_json writes the sign of an exponent.
        assert_eq!(found.replace('+', ""), text);
    }
    assert_eq!(parsed("1152921504606846976.0"), Value::Int(1_152_921_504_606_846_976));
    assert_ne!(parsed("1152921504606847000.0"), Value::Int(1_152_921_504_606_846_976));
}

#[test]
fn numbers_in_strings_and_keys_are_text() {
    for text in [r#"{"1e400":"0.10000000000000000001"}"#, r#"{"\"1e400":"\\","a":0.1}"#, r#"["\u0031e400"]"#] {
        assert_eq!(parsed(text), serde_json::from_str::<Value>(text).unwrap());
    }
    assert_eq!(Value::parse(br#"{"a":0.10000000000000000001,"b":"\u0000"}"#), Err(ValueError::Nul));
    assert_eq!(parsed(r#"["\\u0000"]"#).to_json(), r#"["\\u0000"]"#);
    for text in ["1.5.5", "0.1e", "[0.12345678901234567890", "1e5x", "-", "-1e400-", "0.1234567890123456 7", "01.5e3"] {
        assert!(matches!(Value::parse(text.as_bytes()), Err(ValueError::Syntax(_))), "{text}");
    }
}

#[test]
fn a_number_is_as_long_as_it_is_without_an_exponent() {
    let digits = MAX_DIGITS as usize;
    for (text, length) in [
        ("0", 0),
        ("-7", 1),
        ("1.25", 3),
        ("100", 3),
        ("0.001", 3),
        ("12e3", 5),
        (&*"9".repeat(digits), MAX_DIGITS),
        ("1e4300", MAX_DIGITS + 1),
        ("1e-4301", MAX_DIGITS + 1),
    ] {
        assert_eq!(decimal(text).written_digits(), length, "{text}");
        let value = parsed(&format!(r#"[{{"a":[{text}]}}]"#));
        assert_eq!(value.has_long_number(), length > MAX_DIGITS, "{text}");
    }
    assert_eq!(decimal("-12e2").whole().unwrap(), "-1200");
    assert_eq!((decimal("0.0").whole().unwrap(), decimal("1.5").whole()), ("0".to_owned(), None));
}

// ---- Any numbers -----------------------------------------------------------------------------------------------------------

/// A sign and digits, and where their point stands: `digits × 10^power`.
type Exact = (i64, i32);

fn exact() -> impl Strategy<Value = Exact> {
    let few = -20..20i64;
    prop_oneof![(few, -3..3), (any::<i64>(), -25..12), (any::<i64>().prop_map(|digits| digits / 1_000_000), -25..25)]
}

/// The same number, or one that differs in its last place at most.
fn neighbour((digits, power): Exact) -> impl Strategy<Value = Exact> {
    prop_oneof![
        Just((digits, power)),
        (-1..=1i64).prop_map(move |step| (digits.saturating_add(step), power)),
        Just((digits / 10, power + 1)),
        Just((
            digits.checked_mul(10).map_or(digits, |digits| digits),
            power - i32::from(digits.checked_mul(10).is_some())
        )),
        exact(),
    ]
}

/// The one of many ways to write it as JSON.
fn written((digits, power): Exact, how: u8) -> String {
    let sign = if digits < 0 { "-" } else { "" };
    let digits = digits.unsigned_abs().to_string();
    let plain = match usize::try_from(power) {
        Ok(zeros) => format!("{digits}{}", "0".repeat(if digits == "0" { 0 } else { zeros })),
        Err(_) => {
            let places = power.unsigned_abs() as usize;
            let padded = format!("{digits:0>width$}", width = places + 1);
            let (whole, fraction) = padded.split_at(padded.len() - places);
            format!("{whole}.{fraction}")
        }
    };
    let text = match how % 6 {
        0 if plain.contains('.') => format!("{plain}000"),
        0 => format!("{plain}.00"),
        1 => format!("{digits}e{power}"),
        2 if digits != "0" => format!("{digits}0.0E{:+}", power - 1),
        3 if digits.len() > 1 => format!("{}.{}e{}", &digits[..1], &digits[1..], power + digits.len() as i32 - 1),
        _ => plain,
    };
    format!("{sign}{text}")
}

/// How two numbers compare, by integers that hold both.
fn compare(one: Exact, other: Exact) -> Ordering {
    let digits = |(digits, power): Exact, least: i32| {
        let mut limbs = digits.unsigned_abs().to_string();
        if digits != 0 {
            limbs.extend(std::iter::repeat_n('0', (power - least) as usize));
        }
        (digits.signum(), limbs)
    };
    let least = one.1.min(other.1);
    let ((sign, left), (other_sign, right)) = (digits(one, least), digits(other, least));
    let magnitude = left.len().cmp(&right.len()).then_with(|| left.cmp(&right));
    sign.cmp(&other_sign).then(if sign < 0 { magnitude.reverse() } else { magnitude })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_numbers_compare_by_their_value_however_they_are_written(
        (one, other) in exact().prop_flat_map(|one| (Just(one), neighbour(one))),
        (how, other_how) in any::<(u8, u8)>(),
    ) {
        let (text, other_text) = (written(one, how), written(other, other_how));
        let (left, right) = (parsed(&text), parsed(&other_text));
        let order = compare(one, other);
        prop_assert_eq!(left.as_decimal().unwrap().cmp(&right.as_decimal().unwrap()), order, "{} {}", text, other_text);
        prop_assert_eq!(left == right, order.is_eq(), "{} {}", text, other_text);
        prop_assert_eq!(left.canonical() == right.canonical(), order.is_eq(), "{} {}", text, other_text);
        for (text, value) in [(&text, &left), (&other_text, &right)] {
            // Nothing is lost by a float, by writing or by the canonical text, and text is read like a number.
            prop_assert_eq!(value.as_decimal(), Decimal::parse(text));
            prop_assert_eq!(Decimal::parse_text(text), Decimal::parse(text));
            prop_assert_eq!(Decimal::parse(&value.to_json()), Decimal::parse(text));
            prop_assert_eq!(Decimal::parse(&value.canonical()), Decimal::parse(text));
            prop_assert_eq!(number(text).unwrap(), parsed(text));
        }
    }

    #[test]
    fn every_float_is_read_as_itself(bits in any::<u64>()) {
        let float = f64::from_bits(bits);
        prop_assume!(float.is_finite());
        for text in [Value::Float(float).to_json(), format!("{float:?}"), format!("{float:e}")] {
            let read = parsed(&format!(r#"{{"a":{text}}}"#));
            let exactly = matches!(read.get("a"), Some(Value::Float(read)) if read.to_bits() == bits);
            // Zero may have been written as an integer.
            prop_assert!(exactly || float == 0.0, "{} {:?}", text, read);
        }
    }
}
