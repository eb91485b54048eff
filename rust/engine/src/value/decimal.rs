//! A number as a decimal: what numbers are compared by, exactly, where neither 64 bits nor a float would do.

use std::cmp::Ordering;
use std::fmt;

/// An exponent further from zero than this makes no number: Python's `decimal` does not go much further.
const MAX_EXPONENT: i64 = 100_000_000_000_000_000;

/// A number as a sign, its digits without leading or trailing zeros, and the place of the decimal point:
/// `0.d₁d₂d₃… × 10^point`. Zero has no digits. It has one form for each number, and an order.
///
/// Its text is canonical: equal numbers have one text, and that is a JSON number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    digits: Box<str>,
    point: i64,
}

impl Decimal {
    /// Reads a JSON number; `None` for any other text, and where the exponent is beyond 10^17.
    pub fn parse(text: &str) -> Option<Decimal> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, _) = split_exponent(unsigned);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
        let is_json = !whole.is_empty() && !fraction.is_empty() && (whole.len() == 1 || !whole.starts_with('0'));
        if is_json { read(unsigned, text.len() > unsigned.len()) } else { None }
    }

    /// Reads a finite number as Python's `decimal` has it: a sign, digits with a point anywhere, an exponent.
    /// `None` for any other text, blanks and underscores included, and where the exponent is beyond 10^17.
    pub fn parse_text(text: &str) -> Option<Decimal> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        read(unsigned, text.starts_with('-'))
    }

    /// Whether it is a whole number.
    pub fn is_integer(&self) -> bool {
        self.point >= self.length()
    }

    /// How many digits it has when it is written without an exponent.
    pub fn written_digits(&self) -> i64 {
        self.point.max(self.length()) - self.point.min(0)
    }

    /// The digits of a whole number, all of them; `None` where it is none. Ask [`Decimal::written_digits`] first.
    pub fn whole(&self) -> Option<String> {
        let mut out = String::new();
        self.is_integer().then(|| self.write_plain(&mut out)).map(|_| out)
    }

    /// The memory that it takes.
    pub fn size(&self) -> usize {
        size_of::<Decimal>() + self.digits.len()
    }

    fn length(&self) -> i64 {
        self.digits.len() as i64
    }

    /// Without an exponent.
    fn write_plain(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        let zeros = |out: &mut dyn fmt::Write, count: i64| (0..count).try_for_each(|_| out.write_char('0'));
        if self.negative {
            out.write_char('-')?;
        }
        match usize::try_from(self.point) {
            Ok(point) if point > 0 && point < self.digits.len() => {
                let (whole, fraction) = self.digits.split_at(point);
                write!(out, "{whole}.{fraction}")
            }
            Ok(_) if self.is_integer() => {
                out.write_str(if self.digits.is_empty() { "0" } else { &self.digits })?;
                zeros(out, self.point - self.length())
            }
            _ => {
                out.write_str("0.")?;
                zeros(out, -self.point)?;
                out.write_str(&self.digits)
            }
        }
    }
}

/// A number without its sign.
fn read(unsigned: &str, negative: bool) -> Option<Decimal> {
    let (mantissa, exponent) = split_exponent(unsigned);
    let exponent = exponent.map_or(Some(0), |exponent| exponent.parse().ok())?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = mantissa.len() > usize::from(mantissa.contains('.'))
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number || !(-MAX_EXPONENT..=MAX_EXPONENT).contains(&exponent) {
        return None;
    }
    let all = [whole, fraction].concat();
    let without_leading = all.trim_start_matches('0');
    let digits = without_leading.trim_end_matches('0');
    if digits.is_empty() {
        return Some(Decimal { negative: false, digits: "".into(), point: 0 });
    }
    let leading = all.len() - without_leading.len();
    Some(Decimal { negative, digits: digits.into(), point: whole.len() as i64 - leading as i64 + exponent })
}

fn split_exponent(unsigned: &str) -> (&str, Option<&str>) {
    match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    }
}

/// Without an exponent where that is short.
impl fmt::Display for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (-5..=40).contains(&self.point) {
            return self.write_plain(out);
        }
        let (first, rest) = self.digits.split_at(1);
        let (sign, point) = (if self.negative { "-" } else { "" }, if rest.is_empty() { "" } else { "." });
        write!(out, "{sign}{first}{point}{rest}e{}", self.point - 1)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let sign = |number: &Decimal| match (number.digits.is_empty(), number.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let magnitude = || (self.point, &self.digits).cmp(&(other.point, &other.digits));
        let within = || if self.negative { magnitude().reverse() } else { magnitude() };
        sign(self).cmp(&sign(other)).then_with(within)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
