//! What a request gets where there is not room for all, and until when.

use super::*;

const ESTIMATE: Charge = Charge { prompt: 40, completion: 500, gpu_ms: 9_000 };

/// What the estimate gets, with at least 16 tokens and 100 ms, after something else was admitted.
fn granted(before: Charge, of_user: &Limits, of_key: &Limits) -> Result<Charge, Refusal> {
    let books = books(9);
    let (_held, _) = books.reserve(two_levels(before, of_user, of_key), EDGE).unwrap();
    let ask = two_levels(ESTIMATE, of_user, of_key).at_least(16, 100);
    let (claim, _) = books.reserve(ask, EDGE)?;
    let held = books.windows(user("alice"), EDGE).day.reserved;
    assert_eq!(held, before.plus(claim.reserved), "what is granted is what is held");
    Ok(claim.reserved)
}

#[test]
fn an_estimate_is_cut_to_the_room_but_not_below_the_least() {
    use Resource::{CompletionTokens, GpuTime, PromptTokens, Tokens};
    // limit, used of it before, what is granted of 40 + 500 tokens and 9,000 ms
    let cases = [
        (Tokens, 1_000, tokens(0), Some((500, 9_000))),
        (Tokens, 540, tokens(0), Some((500, 9_000))),
        (Tokens, 539, tokens(0), Some((499, 9_000))),
        (Tokens, 1_000, tokens(700), Some((260, 9_000))),
        (Tokens, 56, tokens(0), Some((16, 9_000))),
        (Tokens, 55, tokens(0), None),
        (Tokens, 1_000, tokens(944), Some((16, 9_000))),
        (Tokens, 1_000, tokens(945), None),
        (CompletionTokens, 100, tokens(60), Some((40, 9_000))),
        (CompletionTokens, 100, tokens(85), None),
        (PromptTokens, 40, tokens(700), Some((500, 9_000))),
        (PromptTokens, 39, tokens(0), None),
        (GpuTime, 9_100, GPU_MS, Some((500, 9_000))),
        (GpuTime, 101, GPU_MS, Some((500, 100))),
        (GpuTime, 100, GPU_MS, None),
    ];
    for (resource, limit, before, expected) in cases {
        let limits = per(resource, Window::Day, limit);
        let found = granted(before, &limits, &roomy());
        let grant = |(completion, gpu_ms)| Charge { completion, gpu_ms, ..ESTIMATE };
        assert_eq!(found.ok(), expected.map(grant), "{resource:?} {limit} {before:?}");
        let meter = found.map_err(|refusal| refusal.meter().name());
        let day = Meter::Window(resource, Window::Day).name();
        assert_eq!(meter.err(), expected.is_none().then_some(day), "{resource:?} {limit}");
    }
}

#[test]
fn the_tightest_limit_of_all_levels_cuts() {
    let gpu = per(Resource::GpuTime, Window::Month, 1_000);
    let found = granted(tokens(0), &tokens_per_minute(140), &gpu).unwrap();
    assert_eq!(found, Charge { prompt: 40, completion: 100, gpu_ms: 1_000 });
    let found = granted(tokens(0), &tokens_per_minute(140), &tokens_per_day(90)).unwrap();
    assert_eq!(found.completion, 50);
}

#[test]
fn what_can_never_pass_is_told_apart_from_what_can_pass_later() {
    // used before, limit, whether there is a wait
    for (before, limit, waits) in [(0, 55, false), (1, 56, true), (900, 900, true)] {
        let refusal = granted(tokens(before), &tokens_per_day(limit), &roomy()).unwrap_err();
        assert_eq!(refusal.retry_after().is_some(), waits, "{before} of {limit}");
    }
}

#[test]
fn the_wait_for_a_window_is_exact_for_all_resources() {
    let ends = [
        (Window::Minute, 10_000),
        (Window::Hour, 10_000),
        (Window::Day, 10_000),
        (Window::Month, 8 * 86_400_000 + 10_000), // 2026-12-01T00:00:00Z
    ];
    let one = Charge { prompt: 1, completion: 1, gpu_ms: 2 };
    for (window, ms) in ends {
        for resource in Resource::ALL {
            let (books, limits) = (books(9), per(resource, window, 3 * resource.of(one)));
            let pay = |now| {
                let (claim, _) = books.reserve(demand(one, &limits), now)?;
                books.settle(&claim, one, now);
                Ok(())
            };
            assert_eq!([EDGE; 3].map(pay), [Ok(()); 3], "{resource:?} per {window:?}");
            let refusal: Refusal = pay(EDGE).unwrap_err();
            assert_eq!(refusal.meter(), Meter::Window(resource, window));
            assert_eq!(refusal.retry_after(), Some(Duration::from_millis(ms)));
            assert!(pay(later(EDGE, ms - 1)).is_err(), "{resource:?} per {window:?}: early");
            assert_eq!(pay(later(EDGE, ms)), Ok(()), "{resource:?} per {window:?}: late");
        }
    }
}
