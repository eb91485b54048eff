use super::*;

fn user(name: &str) -> Arc<Account> {
    Arc::new(Account::User(None, name.into()))
}

fn with_stopped_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime without I/O needs nothing that could be missing").block_on(test);
}

#[test]
fn a_burst_comes_at_once_and_is_refilled_evenly() {
    with_stopped_time(async {
        let rates = Rates::new(quota(4.0, 10), &Clock::system());
        let (one, other) = (user("1"), user("2"));
        assert_eq!((0..20).filter(|_| rates.take(&one)).count(), 10);
        assert_eq!((0..20).filter(|_| rates.take(&other)).count(), 10);
        tokio::time::advance(Duration::from_millis(249)).await;
        assert!(!rates.take(&one));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(rates.take(&one) && !rates.take(&one));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..20).filter(|_| rates.take(&one)).count(), 4);
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert_eq!((0..20).filter(|_| rates.take(&one)).count(), 10);
    });
}

#[test]
fn a_rate_of_events_gives_a_second_at_once_and_one_below_one_gives_one() {
    with_stopped_time(async {
        for (per_second, at_once) in [(0.001, 1), (0.999, 1), (1.0, 1), (2.9, 2), (1_000.0, 1_000)] {
            let rates = Rates::new(events(per_second), &Clock::system());
            assert_eq!((0..2_000).filter(|_| rates.take(&user("1"))).count(), at_once, "{per_second}");
        }
    });
}

#[test]
fn any_rate_that_limits_may_have_is_counted_with() {
    with_stopped_time(async {
        for per_second in [f64::MIN_POSITIVE, 5e-324, 1e-9, 1e9, 1e300, f64::MAX] {
            for burst in [1, 2, u32::MAX] {
                assert!(
                    Rates::new(quota(per_second, burst), &Clock::system()).take(&user("1")),
                    "{per_second} {burst}"
                );
            }
            assert!(Rates::new(events(per_second), &Clock::system()).take(&user("1")), "{per_second}");
        }
    });
}

#[test]
fn accounts_that_are_idle_are_forgotten_and_no_others() {
    with_stopped_time(async {
        let rates = Rates::new(quota(1.0, 2), &Clock::system());
        for n in 0..100 {
            rates.take(&user(&n.to_string()));
        }
        assert_eq!(rates.sweep(), 100);
        tokio::time::advance(Duration::from_secs(10)).await;
        let busy = user("busy");
        assert!(rates.take(&busy) && rates.take(&busy));
        assert_eq!(rates.sweep(), 1);
        assert!(!rates.take(&busy));
        // Without anybody asking for it, too.
        for n in 0..BETWEEN_SWEEPS {
            rates.take(&user(&n.to_string()));
            tokio::time::advance(Duration::from_secs(10)).await;
        }
        assert!(rates.limiter.len() < BETWEEN_SWEEPS / 2, "{}", rates.limiter.len());
    });
}

#[test]
fn what_is_held_is_given_back_and_nothing_is_kept_of_who_holds_nothing() {
    let tallies = Tallies::new(Some(2), Some(3));
    let accounts =
        |name: &str| Accounts { user: Some(user(name)), tenant: Some(Arc::new(Account::Tenant("a".into()))) };
    let first = [Seat::new(accounts("1"), &tallies).take(), Seat::new(accounts("1"), &tallies).take()];
    assert_eq!(Seat::new(accounts("1"), &tallies).take().err(), Some(Reached::User));
    let third = Seat::new(accounts("2"), &tallies).take();
    assert!(third.is_ok());
    assert_eq!(Seat::new(accounts("2"), &tallies).take().err(), Some(Reached::Tenant));
    // Whom the tenant's limit refused holds nothing of the user's.
    drop(first);
    let second = Seat::new(accounts("2"), &tallies).take();
    assert!(second.is_ok());
    assert_eq!(Seat::new(accounts("2"), &tallies).take().err(), Some(Reached::User));
    drop((second, third));
    let held = |tally: &Option<Tally>| tally.as_ref().map(|tally| tally.held.len());
    assert_eq!((held(&tallies.per_user), held(&tallies.per_tenant)), (Some(0), Some(0)));
}

#[test]
fn a_refusal_leaves_no_account_behind() {
    let tallies = Tallies::new(Some(1), Some(1));
    let tenant = Some(Arc::new(Account::Tenant("a".into())));
    let held = Seat::new(Accounts { user: None, tenant: tenant.clone() }, &tallies).take();
    assert!(held.is_ok());
    for n in 0..100 {
        let accounts = Accounts { user: Some(user(&n.to_string())), tenant: tenant.clone() };
        assert_eq!(Seat::new(accounts, &tallies).take().err(), Some(Reached::Tenant));
    }
    assert_eq!(tallies.per_user.as_ref().map(|tally| tally.held.len()), Some(0));
}
