use super::*;

#[test]
fn sizes_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("65536", 65_536),
        ("64KiB", 65_536),
        ("64kib", 65_536),
        ("64K", 65_536),
        ("64k", 65_536),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("64kb", 64_000),
        (" 1 MiB ", 1 << 20),
        ("1.5 GB", 1_500_000_000),
        ("1.5GiB", 3 << 29),
        ("0.001KiB", 1),
        ("2TiB", 2 << 40),
        ("3P", 3 << 50),
        ("512B", 512),
        ("512 bytes", 512),
        ("999999999999999999", 999_999_999_999_999_999),
        ("16383PiB", 16_383 << 50),
    ] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
}

#[test]
fn sizes_that_mean_nothing_are_refused() {
    for text in ["", "KiB", "-1", "+1", ".5", "1.", "1..2", "1.2.3", "0x10", "1e9", "1,5", "1_000"] {
        assert!(matches!(parse_size(text), Err(ParseError::Number(_) | ParseError::Unit { .. })), "{text}");
    }
    for text in ["1Mbit", "1MiB/s", "1 parsec", "1 K B", "1KiBB", "1Ki", "1é", "1\u{1b}[31m", "1i", "1iB"] {
        assert!(matches!(parse_size(text), Err(ParseError::Unit { .. })), "{text}");
    }
    assert_eq!(parse_size("16384PiB"), Err(ParseError::TooLarge));
    assert_eq!(parse_size("999999999999999999P"), Err(ParseError::TooLarge));
    assert_eq!(parse_size("1000000000000000000"), Err(ParseError::Digits));
    assert_eq!(parse_size(&"9".repeat(10_000)), Err(ParseError::Digits));
}

#[test]
fn rates_are_read_as_people_write_them() {
    for (text, bytes) in [
        ("0", 0),
        ("1000", 1000),
        ("1000/s", 1000),
        ("1KiB", 1024),
        ("1KiB/s", 1024),
        ("1K", 1024),
        ("1K/s", 1024),
        ("100MiB/s", 100 << 20),
        ("100mib/s", 100 << 20),
        ("20MB/s", 20_000_000),
        ("20MB", 20_000_000),
        ("20MBps", 20_000_000),
        ("1MiBps", 1 << 20),
        ("1Gbit/s", 125_000_000),
        ("1gbit", 125_000_000),
        ("1 Gbits/s", 125_000_000),
        ("1Gibit/s", 1 << 27),
        ("8bit/s", 1),
        ("8Mbps", 1_000_000),
        ("8mbps", 1_000_000),
        ("8Mibps", 1 << 20),
        ("2.5Gbit/s", 312_500_000),
        ("9bps", 1),
        ("100B/s", 100),
        ("100b", 100),
        ("400Gbit/s", 50_000_000_000),
    ] {
        assert_eq!(parse_rate(text), Ok(bytes), "{text}");
    }
    for text in ["1bit/s", "1bps", "0.1B/s"] {
        assert_eq!(parse_rate(text), Ok(1), "{text}: a small limit is no absence of a limit");
    }
}

#[test]
fn rates_that_may_mean_two_things_are_refused() {
    for text in ["100Mb/s", "100mb", "1kb/s", "5gb"] {
        assert!(matches!(parse_rate(text), Err(ParseError::Ambiguous(_))), "{text}");
    }
    for text in ["1MiB/h", "1 fast", "1it/s", "1Mi/s", "1ps", "1Mps", "1bitps", "1Kiit"] {
        assert!(matches!(parse_rate(text), Err(ParseError::Unit { .. })), "{text}");
    }
    assert_eq!(parse_rate("99999PiB/s"), Err(ParseError::TooLarge));
    assert!(parse_rate("-1MiB/s").is_err() && parse_rate("/s").is_err());
}

#[test]
fn sizes_are_shown_with_three_digits() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 << 10, "10.0 KiB"),
        (100 << 20, "100 MiB"),
        (1023 << 20, "1023 MiB"),
        ((1 << 30) - 1, "1.00 GiB"),
        (2 << 30, "2.00 GiB"),
        (1 << 50, "1.00 PiB"),
        (u64::MAX, "16.0 EiB"),
    ] {
        assert_eq!(format_size(bytes), text, "{bytes}");
    }
    assert_eq!(format_rate(3 << 19), "1.50 MiB/s");
}

#[test]
fn every_power_of_two_is_read_back_as_shown() {
    for power in 0..60 {
        let bytes = 1u64 << power;
        assert_eq!(parse_size(&format_size(bytes)), Ok(bytes), "2^{power}");
        assert_eq!(parse_rate(&format_rate(bytes)), Ok(bytes), "2^{power}");
    }
}

#[test]
fn times_are_shown_in_two_units() {
    for (seconds, text) in [
        (0, "0s"),
        (59, "59s"),
        (60, "1m 00s"),
        (3599, "59m 59s"),
        (3600, "1h 00m"),
        (86_399, "23h 59m"),
        (86_400, "1d 00h"),
        (u64::MAX, "213503982334601d 07h"),
    ] {
        assert_eq!(format_duration(seconds), text);
    }
    assert_eq!(format_took(1_549_999_999), "1.5s");
    assert_eq!(
        (format_took(59_999_999_999), format_took(61 * 1_000_000_000)),
        ("59.9s".into(), "1m 01s".into())
    );
    assert_eq!((format_eta(0, 0), format_eta(1, 0)), ("0s".to_owned(), "-".to_owned()));
    assert_eq!(format_eta(101, 10), "11s");
}

#[test]
fn a_hundred_percent_means_all() {
    for (part, whole, text) in [
        (0, 3, "0.0"),
        (1, 3, "33.3"),
        (9999, 10_000, "99.9"),
        (5, 5, "100.0"),
        (9, 5, "100.0"),
        (0, 0, "100.0"),
    ] {
        assert_eq!(format_percent(part, whole), text);
    }
    assert_eq!(format_percent(u64::MAX - 1, u64::MAX), "99.9");
}

#[test]
fn foreign_text_cannot_steer_a_terminal() {
    for (text, shown) in [
        ("plain näme 文件 🎈.bin", "plain näme 文件 🎈.bin"),
        ("a\u{1b}[2Jb", "a\\u{1b}[2Jb"),
        ("line\nbreak\r\t", "line\\u{a}break\\u{d}\\u{9}"),
        ("c1\u{9b}31m del\u{7f}", "c1\\u{9b}31m del\\u{7f}"),
        ("exe\u{202e}gnp", "exe\\u{202e}gnp"),
        ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
        ("tag\u{e0041}", "tag\\u{e0041}"),
    ] {
        assert_eq!(escape_for_terminal(text), shown);
        assert_eq!(format!("{}", Escaped(text)), shown);
    }
    assert!(escape_for_terminal(&(0..=255u8).map(char::from).collect::<String>()).chars().all(|c| c >= ' '));
}

#[test]
fn durations_are_read_as_people_write_them() {
    for (text, ms) in [
        ("0", 0),
        ("90", 90_000),
        ("90s", 90_000),
        ("500ms", 500),
        ("1.5 seconds", 1_500),
        ("30m", 1_800_000),
        (" 30 min ", 1_800_000),
        ("2h", 7_200_000),
        ("0.5h", 1_800_000),
        ("1h30m", 5_400_000),
        ("1h 30m 5s", 5_405_000),
        ("1d", 86_400_000),
        ("2 weeks", 1_209_600_000),
    ] {
        assert_eq!(parse_duration(text), Ok(Span::from_ms(ms)), "{text}");
    }
    for text in ["5parsecs", "1M", "1h30", "30 1h", "1:30", "90%", "1hm", "1µs"] {
        assert!(matches!(parse_duration(text), Err(ParseError::Unit { .. })), "{text}");
    }
    for text in ["", "h", "-1h", "1h-30m", ".5h", "1.h"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert!(parse_duration("200000d").is_ok());
    assert_eq!(parse_duration("999999999999999999w"), Err(ParseError::TooLong));
    assert_eq!(parse_duration("9999999999w 9999999999w"), Err(ParseError::TooLong));
    let error = parse_duration("1y").unwrap_err().to_string();
    assert_eq!(error, "unit \"y\" is not known; write it like 90s, 30m, 2h or 1h30m");
}

#[test]
fn ratios_are_read_in_thousandths() {
    for (text, thousandths) in [
        ("0", 0),
        ("1", 1_000),
        ("1.5", 1_500),
        ("2.0", 2_000),
        ("0.25", 250),
        ("0.0001", 1),
        ("1000", 1_000_000),
    ] {
        assert_eq!(parse_ratio(text), Ok(thousandths), "{text}");
    }
    for text in ["", "-1", "1:2", "50%", "1/2", "one"] {
        assert!(parse_ratio(text).is_err(), "{text}");
    }
    assert_eq!(parse_ratio("999999999999999999"), Err(ParseError::TooLarge));
}
