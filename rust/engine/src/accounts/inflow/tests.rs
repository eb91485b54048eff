use super::*;

fn paces(per_second: f64, at_once: f64) -> Paces {
    Paces { messages: Some(Pace::new(per_second, at_once)), bytes: Some(Pace::new(100.0, 400.0)) }
}

/// After how many milliseconds each may be looked at.
fn waits(inflow: &mut Inflow, paces: &Paces, sizes: &[usize], now: Instant) -> Vec<u128> {
    let wait = |size: &usize| inflow.take(paces, *size, now).map_or(0, |at| (at - now).as_millis());
    sizes.iter().map(wait).collect()
}

#[test]
fn so_many_come_at_once_and_the_others_one_by_one() {
    let (paces, now, mut inflow) = (paces(4.0, 3.0), Instant::now(), Inflow::default());
    assert_eq!(waits(&mut inflow, &paces, &[0; 6], now), [0, 0, 0, 250, 500, 750]);
    let later = now + Duration::from_secs(60);
    assert!(!inflow.is_idle(now) && inflow.is_idle(later));
    assert_eq!(waits(&mut inflow, &paces, &[0; 4], later), [0, 0, 0, 250]);
}

#[test]
fn bytes_come_four_seconds_worth_at_once_and_one_of_any_size_comes_in_the_end() {
    let (paces, now, mut inflow) = (paces(1e9, 1e9), Instant::now(), Inflow::default());
    assert_eq!(waits(&mut inflow, &paces, &[300, 100, 50, 1_000, 1], now), [0, 0, 500, 4_500, 10_510]);
}

#[test]
fn any_rate_that_limits_may_have_is_counted_with() {
    for rate in [f64::MIN_POSITIVE, 5e-324, 1e-9, 1e300, f64::MAX] {
        let (paces, now, mut inflow) = (paces(rate, 1.0), Instant::now(), Inflow::default());
        for _ in 0..100 {
            _ = inflow.take(&paces, 0, now);
        }
    }
}
