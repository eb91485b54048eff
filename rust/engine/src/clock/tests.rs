use super::*;

#[test]
fn a_stopped_clock_goes_when_it_is_told_to_and_wakes_who_sleeps() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = Clock::stopped_at(DateTime::UNIX_EPOCH);
        let (began, other) = (clock.now(), clock.clone());
        let sleeper = tokio::spawn(async move { other.sleep_until(began + Duration::from_secs(10)).await });
        tokio::task::yield_now().await;
        clock.advance(Duration::from_secs(9));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        assert_eq!((clock.now() - began, clock.utc().timestamp()), (Duration::from_secs(9), 9));
        clock.advance(Duration::from_secs(1));
        sleeper.await.expect("it wakes");
        assert_eq!(clock.utc().timestamp(), 10);
    });
}
