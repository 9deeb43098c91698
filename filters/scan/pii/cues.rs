//! The words around a number that say what it is.
//!
//! A passport number is a number like any other; only its context tells. The words of all topics
//! stand in one automaton, which reads a short window around a candidate.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// What a word says about the numbers near it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cue {
    Card,
    Phone,
    /// Somebody is to be reached; weaker than [`Cue::Phone`], and no topic of its own.
    Reach,
    /// Where a number rings, as said after it: `555 1234 office`.
    Desk,
    Ssn,
    Itin,
    Nhs,
    Passport,
    Licence,
    Birth,
    /// A host is spoken of; no topic of its own.
    Network,
    /// A network card is spoken of; no topic of its own.
    Hardware,
    /// A release of some software.
    Version,
    /// Numbers that are nobody's: orders, invoices, products.
    Other,
}

impl Cue {
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The words, in lower case; those in letters of an alphabet match as whole words, or in plural.
const WORDS: [(Cue, &str); 14] = [
    (
        Cue::Card,
        "card, credit, debit, cc, visa, mastercard, maestro, amex, american express, pan, \
         cvv, diners, discover, kreditkarte, karte, kartennummer, carte, carte bancaire, \
         tarjeta, carta di credito, carta, cartão, cartao, karta, kaart, kort, creditcard, \
         kreditkort, карта, карты, карточки, 卡号, 信用卡, 银行卡, カード, 카드",
    ),
    (
        Cue::Phone,
        "phone, telephone, tel, mobile, cell, cellphone, smartphone, fax, whatsapp, pager, \
         hotline, landline, gsm, sms, telefon, telefonnummer, handy, handynummer, mobil, \
         rufnummer, festnetz, téléphone, telephonique, portable, teléfono, telefono, móvil, \
         movil, celular, cellulare, telefone, telemóvel, telefoon, telefoonnummer, mobiel, \
         komórka, puhelin, телефон, телефону, тел, номер телефона, 電話, 电话, 手机, 手機, 전화, 휴대폰, \
         फ़ोन, फोन, هاتف, phonenumber, phone_number, phone no, mobile_number, phone_no, \
         contact number, msisdn",
    ),
    (
        Cue::Reach,
        "call, call me, calling, reach, contact, dial, ring, answering, text me, text, \
         message, voicemail, messages to, anrufen, erreichen, appeler, appelez, joindre, \
         llamar, llame, llámame, chiamare, ligar, ligue, bellen, zadzwoń, позвоните, звоните, \
         registered, emergency",
    ),
    (Cue::Desk, "office, desk, home, work, direct, reception"),
    (
        Cue::Ssn,
        "ssn, social security, social sec, soc sec, social, ssn#, social-security, \
         social_security",
    ),
    (
        Cue::Itin,
        "itin, taxpayer, taxpayer id, taxpayer no, tax id, taxpayer identification, tax identification, tin",
    ),
    (
        Cue::Nhs,
        "nhs, nhs id, nhs no, nhs ref, national health, health service, patient, hospital, nhs_number, nhsnumber, gp \
         surgery",
    ),
    (
        Cue::Passport,
        "passport, passport id, passport ref, passports, passport_number, passport_no, passport no, reisepass, \
         reisepassnummer, passnummer, passeport, pasaporte, passaporto, passaporte, paspoort, \
         paszport, paszportu, паспорт, паспорта, 护照, 護照, パスポート, 旅券, 여권, pasaportu, pasaport, \
         passi, passport#, passportnumber, pass-nr",
    ),
    (
        Cue::Licence,
        "driver's license, drivers license, driver license, driver’s license, driving \
         license, driver's licence, drivers licence, driver licence, driver’s licence, \
         driving licence, driver_license, drivers_license, driver-license, driverlicense, \
         driver_licence, license number, licence number, license no, licence no, license id, licence id, dl number, \
         dl no, dl#, dl, driver's lic, driving permit, führerschein, führerscheinnummer, \
         fuehrerschein, permis de conduire, licencia de conducir, permiso de conducir, carnet \
         de conducir, patente di guida, patente, carta de condução, cnh, carteira de \
         motorista, rijbewijs, rijbewijsnummer, prawo jazdy, prawa jazdy, körkort, kørekort, \
         førerkort, ajokortti, водительское удостоверение, водительского удостоверения, \
         права, 驾驶证, 驾照, 運転免許, 운전면허",
    ),
    (
        Cue::Birth,
        "born, birth, birthday, birthdate, dob, d.o.b, date of birth, birth date, birth_date, \
         date_of_birth, dateofbirth, geboren, geb, geb., geburtsdatum, geburtstag, né le, née \
         le, né(e) le, date de naissance, naissance, nacimiento, fecha de nacimiento, nacido, \
         nacida, nací, nascita, data di nascita, nato il, nata il, nascimento, data de \
         nascimento, nascido, nascida, nasci, geboortedatum, geboren op, urodzenia, urodzony, \
         urodzona, född, født, födelsedatum, syntymäaika, syntynyt, doğum tarihi, doğum, \
         рождения, родился, родилась, дата рождения, 出生, 生日, 出生日期, 生年月日, 誕生日, 생년월일, 생일, जन्म, \
         تاريخ الميلاد",
    ),
    (
        Cue::Network,
        "ip, ips, ipv4, ipv6, host, hostname, server, ping, dns, gateway, router, client, \
         nameserver, resolver, peer, remote_addr, network, login from, connection, connected, \
         connect, ssh, telnet, traceroute, address, addr",
    ),
    (
        Cue::Hardware,
        "mac, mac address, mac_address, macaddress, hwaddr, bssid, ether, ethernet, \
         hardware address, mac-adresse, adresse mac, dirección mac",
    ),
    (
        Cue::Version,
        "version, versions, ver, release, build, firmware, upgrade, v, section, rev, \
         changelog",
    ),
    (
        Cue::Other,
        "order, invoice, tracking, ticket, case, sku, isbn, issn, part, serial, model, \
         product, item, doi, ean, upc, barcode, batch, lot, reference, ref, id, transaction, \
         timestamp, commit, hash, seed, died, death, deceased, gestorben, bestellung, rechnung, commande, facture, pedido, \
         factura, ordine, fattura",
    ),
];

static AUTOMATON: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    let words = WORDS.iter().flat_map(|(_, words)| words.split(", "));
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostLongest)
        .kind(Some(AhoCorasickKind::DFA))
        .build(words)
        .ok()
});

/// The topic of each word of the automaton.
static TOPICS: LazyLock<Vec<Cue>> = LazyLock::new(|| {
    let topics = |(cue, words): &(Cue, &str)| vec![*cue; words.split(", ").count()];
    WORDS.iter().flat_map(topics).collect()
});

/// Marks between a number and the word after it.
const MAX_GAP: usize = 3;

/// Farther before a number than this, the word for a thing is not about the number.
const FAR: usize = 28;

/// What is said around one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cues {
    /// The last topic that is named before it.
    topic: Option<Cue>,
    before: u16,
    /// The first that is named after it.
    after: Option<Cue>,
}

impl Cues {
    /// Reads the texts before and after a number.
    pub(super) fn read(before: &[u8], after: &[u8]) -> Self {
        let mut cues = Self::default();
        for (cue, at) in found_in(before) {
            cues.before |= cue.bit();
            let far = cue == Cue::Other && at + FAR < before.len();
            if !far && !matches!(cue, Cue::Reach | Cue::Network | Cue::Hardware | Cue::Desk) {
                cues.topic = Some(cue);
            }
        }
        let gap = after.iter().take(MAX_GAP).take_while(|b| b" (-/".contains(b)).count();
        let next = found_in(after.get(gap..).unwrap_or_default()).next();
        cues.after = next.filter(|(_, at)| *at == 0).map(|(cue, _)| cue);
        cues
    }

    /// Whether the nearest topic before the number is this one.
    pub(super) fn is_about(self, cue: Cue) -> bool {
        self.topic == Some(cue)
    }

    /// Whether no topic is named before the number, or this one.
    pub(super) fn allows(self, cue: Cue) -> bool {
        self.topic.is_none_or(|topic| topic == cue)
    }

    /// Whether this is said before the number at all.
    pub(super) const fn mentions(self, cue: Cue) -> bool {
        self.before & cue.bit() != 0
    }

    /// Whether the number is followed by this word, as in `555 1234 (fax)`.
    pub(super) fn is_followed_by(self, cue: Cue) -> bool {
        self.after == Some(cue)
    }
}

/// Where any of the words stands in a text, be it whole or a part of another word. Where none does
/// there are no cues, however the text is cut.
pub(super) fn places(text: &[u8]) -> Vec<Range<usize>> {
    let hits = AUTOMATON.iter().flat_map(|automaton| automaton.find_iter(text));
    hits.map(|hit| hit.range()).collect()
}

/// The words in a text, and where they begin.
fn found_in(text: &[u8]) -> impl Iterator<Item = (Cue, usize)> {
    let hits = AUTOMATON.iter().flat_map(move |automaton| automaton.find_iter(text));
    hits.filter(move |hit| is_whole(text, hit.start(), hit.end()))
        .filter_map(|hit| Some((*TOPICS.get(hit.pattern().as_usize())?, hit.start())))
}

/// Whether a word neither begins nor ends inside of a longer one.
pub(super) fn is_whole(text: &[u8], start: usize, end: usize) -> bool {
    let starts =
        !(is_letter_at(text, start) && ends_letter(text, start)) || starts_capital(text, start);
    let plural = text.get(end) == Some(&b's') && !is_letter_at(text, end + 1);
    let ends = !(ends_letter(text, end) && is_letter_at(text, end));
    starts && (ends || plural || starts_capital(text, end))
}

/// Whether a letter of an alphabet begins here: ASCII, or up to Armenian (U+00C0 to U+058F).
/// Scripts without spaces between words are none.
fn is_letter_at(text: &[u8], at: usize) -> bool {
    text.get(at).is_some_and(|b| b.is_ascii_alphabetic() || (0xc3..=0xd6).contains(b))
}

/// Whether such a letter ends before `at`.
fn ends_letter(text: &[u8], at: usize) -> bool {
    match text.get(at.saturating_sub(2)..at) {
        Some([.., b]) if b.is_ascii() => b.is_ascii_alphabetic(),
        Some([lead, 0x80..=0xbf]) => (0xc3..=0xd6).contains(lead),
        _ => false,
    }
}

/// Whether a word of `camelCase` begins here.
fn starts_capital(text: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|at| text.get(at));
    before.is_some_and(u8::is_ascii_lowercase) && text.get(at).is_some_and(u8::is_ascii_uppercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: &str, expected: Option<Cue>) {
        assert_eq!(Cues::read(before.as_bytes(), b"").topic, expected, "{before}");
    }

    #[test]
    fn the_nearest_topic_counts() {
        check("my passport number is ", Some(Cue::Passport));
        check("passport X1, driver's license: ", Some(Cue::Licence));
        check("Phone: ", Some(Cue::Phone));
        check("userPhone = ", Some(Cue::Phone));
        check("mobilePhones: ", Some(Cue::Phone));
        check("call me at ", None);
        check("the telescope ", None);
        check("护照号码", Some(Cue::Passport));
        check("NÚMERO DE TELÉFONO ", None);
        check("Número de teléfono ", Some(Cue::Phone));
    }

    #[test]
    fn words_before_and_after_are_kept_apart() {
        let cues = Cues::read(b"call the office ", b" fax");
        assert!(cues.mentions(Cue::Reach) && cues.is_followed_by(Cue::Phone));
        assert!(
            cues.allows(Cue::Phone) && !cues.is_about(Cue::Phone) && !cues.mentions(Cue::Phone)
        );
    }
}
