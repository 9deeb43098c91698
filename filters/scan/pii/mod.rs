//! Personal data: what identifies a person, and terms of finance and health.
//!
//! Every kind is found from the outside in: a run of digits, an `@`, a colon or a word of the
//! lexicon is looked for first, and only there the text is read, within fixed lengths. Kinds with
//! a check digit or a grammar are validated by it; kinds that are mere numbers need words of
//! context (`cues`). What identifies one person is on by default; dates of birth, which every
//! biography has, and names, addresses and terms, which nothing validates, are for policies that
//! ask for them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

mod address;
mod bank;
mod birth;
mod card;
mod crypto;
mod cues;
mod document;
mod email;
mod keccak;
mod lexicon;
mod national;
mod network;
mod person;
mod phone;
mod survey;

pub(crate) use survey::Survey;

/// What is known about one kind of personal data.
#[derive(Debug)]
struct Detector {
    name: &'static str,
    placeholder: &'static str,
    /// Whether policies look for it unless they say otherwise.
    default: bool,
    /// Bytes of the longest span.
    longest: usize,
    /// See [`PiiKind::shape`].
    shape: fn() -> &'static str,
    find: fn(&Survey<'_>) -> Vec<Range<usize>>,
}

/// A kind of personal data that can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind needs a detector and a placeholder")]
pub enum PiiKind {
    /// An e-mail address (RFC 5321).
    Email,
    /// A telephone number, international (E.164) or national.
    Phone,
    /// A payment card number with a valid check digit (ISO/IEC 7812-1).
    Card,
    /// An international bank account number with valid check digits (ISO 13616).
    Iban,
    /// A social security number of the United States.
    Ssn,
    /// A taxpayer identification number of the United States.
    Itin,
    /// A number of the National Health Service with a valid check digit.
    Nhs,
    /// A passport number that is called one.
    Passport,
    /// The number of a driving licence that is called one.
    DriverLicense,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A hardware address (IEEE 802).
    Mac,
    /// An address of a cryptocurrency with a valid checksum.
    Crypto,
    /// A date that is called somebody's date of birth.
    DateOfBirth,
    /// A street address.
    Address,
    /// A name after a title or an introduction.
    Person,
    /// A term of personal finance.
    FinancialTerm,
    /// A term of personal health.
    HealthTerm,
}

impl PiiKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Email,
        Self::Phone,
        Self::Card,
        Self::Iban,
        Self::Ssn,
        Self::Itin,
        Self::Nhs,
        Self::Passport,
        Self::DriverLicense,
        Self::Ip,
        Self::Mac,
        Self::Crypto,
        Self::DateOfBirth,
        Self::Address,
        Self::Person,
        Self::FinancialTerm,
        Self::HealthTerm,
    ];

    /// How far before a find its context may stand, in bytes.
    pub const LOOK_BEHIND: usize = survey::BEFORE;

    /// How far after a find the text may still decide about it, in bytes.
    pub const LOOK_AHEAD: usize = survey::AFTER;

    /// The one registry of detectors.
    const fn detector(self) -> &'static Detector {
        match self {
            Self::Email => &email::EMAIL,
            Self::Phone => &phone::PHONE,
            Self::Card => &card::CARD,
            Self::Iban => &bank::IBAN,
            Self::Ssn => &national::SSN,
            Self::Itin => &national::ITIN,
            Self::Nhs => &national::NHS,
            Self::Passport => &document::PASSPORT,
            Self::DriverLicense => &document::DRIVER_LICENSE,
            Self::Ip => &network::IP,
            Self::Mac => &network::MAC,
            Self::Crypto => &crypto::CRYPTO,
            Self::DateOfBirth => &birth::DATE_OF_BIRTH,
            Self::Address => &address::ADDRESS,
            Self::Person => &person::PERSON,
            Self::FinancialTerm => &lexicon::FINANCIAL_TERM,
            Self::HealthTerm => &lexicon::HEALTH_TERM,
        }
    }

    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.detector().name
    }

    /// What a redacted text shows instead.
    #[must_use]
    pub const fn placeholder(self) -> &'static str {
        self.detector().placeholder
    }

    /// Whether policies look for it unless they say otherwise.
    #[must_use]
    pub const fn is_default(self) -> bool {
        self.detector().default
    }

    /// Bytes of the longest span that is ever found.
    #[must_use]
    pub const fn longest(self) -> usize {
        self.detector().longest
    }

    /// A regular expression over bytes (without Unicode) that is wider than the detector: read
    /// from the first byte of anything that may become a find, its anchored automaton is alive at
    /// least until the byte that decides. Where it is dead, a stream may be let go.
    #[must_use]
    pub fn shape(self) -> &'static str {
        (self.detector().shape)()
    }

    /// Where such data stands in a text, in order.
    pub(super) fn find(self, text: &str) -> Vec<Range<usize>> {
        self.find_in(&Survey::new(text))
    }

    /// The same for a text that is surveyed already, since the survey serves all kinds.
    pub(super) fn find_in(self, survey: &Survey<'_>) -> Vec<Range<usize>> {
        (self.detector().find)(survey)
    }
}

#[cfg(test)]
mod testing {
    use super::PiiKind;

    #[track_caller]
    pub(super) fn check(kind: PiiKind, text: &str, expected: &[&str]) {
        let found: Vec<_> = kind.find(text).into_iter().filter_map(|span| text.get(span)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_automata::hybrid::dfa::DFA;
    use regex_automata::nfa::thompson;
    use regex_automata::util::syntax;
    use regex_automata::{Anchored, Input, MatchKind};

    use super::*;

    /// Texts with one of each kind, in forms that are divided in many ways.
    const INSTANCES: &str = concat!(
        "ann.lee+x@mail.example.com|\\+1 \\(415\\) 555-2671|0660 565 36 45|415-555-2671 ?x12|",
        "2546712361 fax|4111 1111 1111 1111|3782 822463 10005|5555-5555-5555-4444|",
        "GB82 WEST 1234 5698 7654 32|DE89370400440532013000|536-32-3065|912-70-1234|",
        "NHS 943 476 5919|passport X1234567|driving licence MORGA657054SM9IJ|DL 123 456 789|",
        "203\\.0\\.113\\.7|2001:db8::8a2e:370:7334|00:1A:2B:3C:4D:5E|001a\\.2b3c\\.4d5e|",
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa|bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq|",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed|born 9/20/1968|born September 20, 1968|",
        "出生日期1968年9月20日|221B Baker Street, London NW1 6XE|Hauptstraße 5a, 10115 Berlin|",
        "Dr\\. Ada Lovelace|我叫王小明|credit score|diabetes",
    );

    fn automaton(shape: &str) -> DFA {
        DFA::builder()
            .configure(DFA::config().match_kind(MatchKind::All))
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().utf8(false))
            .build(shape)
            .expect("shape")
    }

    /// How many bytes keep the anchored automaton alive.
    fn life(dfa: &DFA, text: &[u8]) -> usize {
        let mut cache = dfa.create_cache();
        let input = Input::new(text).anchored(Anchored::Yes);
        let mut state = dfa.start_state_forward(&mut cache, &input).expect("start");
        for (at, &byte) in text.iter().enumerate() {
            state = dfa.next_state(&mut cache, state, byte).expect("state");
            if state.is_dead() {
                return at;
            }
        }
        text.len()
    }

    fn outlives(kind: PiiKind, dfa: &DFA, text: &str) -> Result<usize, TestCaseError> {
        let found = kind.find(text);
        for span in &found {
            let read = text.as_bytes().get(span.start..).unwrap_or_default();
            let due = read.len().min(span.len() + 1);
            prop_assert!(life(dfa, read) >= due, "{kind:?}: {span:?} of {text:?}");
            prop_assert!(span.len() <= kind.longest(), "{kind:?}: {span:?} of {text:?}");
        }
        Ok(found.len())
    }

    #[test]
    fn every_kind_has_a_shape_that_outlives_its_instances() {
        for kind in PiiKind::ALL {
            let dfa = automaton(kind.shape());
            let texts = INSTANCES.replace('\\', "").replace(" ?", " ");
            let found = texts.split('|').map(|text| outlives(kind, &dfa, &format!("a {text}, b")));
            assert!(found.map(|n| n.expect("alive")).sum::<usize>() > 0, "{kind:?}");
        }
    }

    #[test]
    fn numbers_of_things_are_nobodys() {
        for text in [
            "version 10.20.30.40, Chrome/120.0.6099.129, v1.2.3.4, section 4.1.2.3",
            "ISBN 978-3-16-148410-0, ISBN-13: 9783161484100, EAN 4006381333931, UPC 036000291452",
            "order #4111111111111111, invoice 2024-001-536-32, tracking: 9400 1000 0000 0000 0000 00",
            "commit 3b18e512dba79e4c8300dd08aeb37f8e728b8dad, uuid 550e8400-e29b-41d4-a716-446655440000",
            "48.858370, 2.294481; timestamp 1700000000000; 2024-01-15T10:30:45.123456789Z",
            "#ff00aa; rgba(255, 128, 0, 0.5); 255.255.255.0; 16:9:4; std::collections::HashMap::new",
            "arXiv:2301.12345v2 doi:10.1000/182 CVE-2024-12345 PR #123456 EIN 12-3456789",
            "sku 123-45-6789-1, part no. 123-456-7890, case number 123-45-678, ticket INC0012345678",
            "DE89370400440532013001 4111111111111112 1234-5678-9012-3456 0000-0000-0000-0000",
            "0x0000000000000000000000000000000000000000 0xffffffffffffffffffffffffffffffffffffffff",
            "npm i @types/node@18.1.0 react@18.2.0, git@github.com:user/repo.git, logo@2x.png",
            "my passport photo is 35x45 mm; passport expires 2027-05-01; dial 0; call 911",
            "population 1,380,004,385; 1 234 567 890; 3.14159265358979323846; season 27/10/75",
        ] {
            for kind in PiiKind::ALL.into_iter().filter(|kind| kind.is_default()) {
                assert!(kind.find(text).is_empty(), "{kind:?}: {text}");
            }
        }
    }

    #[test]
    fn a_text_with_nothing_in_it_costs_no_allocation() {
        for kind in PiiKind::ALL {
            assert_eq!(kind.find("The sea is blue, and so is the sky.").capacity(), 0, "{kind:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn shapes_are_wider_than_detectors(
            before in "[a-z :,(]{0,12}", instance in INSTANCES, after in "[ .,)a-z0-9é-]{0,8}",
        ) {
            for kind in PiiKind::ALL {
                outlives(kind, &automaton(kind.shape()), &format!("{before}{instance}{after}"))?;
            }
        }

        #[test]
        fn any_text_is_read_and_spans_fall_on_characters(
            text in "(\\PC|[0-9]{1,4}[ .:/-]|@|a@b\\.co|born |card |Mr\\. |é){0,60}",
        ) {
            for kind in PiiKind::ALL {
                for span in kind.find(&text) {
                    prop_assert!(text.get(span.clone()).is_some(), "{kind:?} {span:?}");
                }
            }
        }
    }
}
