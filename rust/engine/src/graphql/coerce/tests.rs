use apollo_compiler::validation::Valid;

use super::*;
use crate::error::Rejection;
use crate::graphql::document::Document;
use crate::graphql::schema::tests::schema;

const SDL: &str = r#"
    type Subscription {
        f(int: Int, float: Float, string: String, boolean: Boolean, id: ID, color: Color, ints: [Int], grid: [[Int!]], ids: [ID!],
          point: Point, points: [Point!], one: One, json: JSON, date: Date, time: Time, at: DateTime, uuid: UUID, decimal: Decimal, other: Other): Int
        required(intNeeded: Int!, strict: Strict, withDefault: Int! = 7, deep: Deep = {inner: {}}): Int
    }
    enum Color { RED GREEN }
    input Point { xCoord: Int! yCoord: Int = 2 color: Color = RED tags: [String!] = ["a"] json: JSON }
    input Strict { list: [Int!]! strict: Strict }
    input Deep { inner: Inner! = {b: 3} }
    input Inner { aField: Int = 1 b: Int }
    input One @oneOf { a: Int b: String c: Inner }
    scalar JSON scalar Date scalar Time scalar DateTime scalar UUID scalar Decimal scalar Other"#;

fn limits() -> crate::limits::Limits {
    crate::graphql::operation::tests::limits()
}

fn coerce(query: &str, variables: &str) -> Result<String, String> {
    let schema = schema(SDL);
    let describe = |errors: &[GraphQLError]| {
        let one = |error: &GraphQLError| format!("{} {:?}", error.message, error.locations);
        errors.iter().map(one).collect::<Vec<_>>().join(" | ")
    };
    let document = match Document::parse(&schema, &limits(), query, None) {
        Ok(document) => document.executable,
        Err(Rejection::Request(errors)) => return Err(format!("invalid: {}", describe(&errors))),
        Err(other) => unreachable!("{other:?}"),
    };
    let document: &Valid<ExecutableDocument> = &document;
    let operation = document.operations.get(None).expect("one operation");
    let given = Value::parse(variables.as_bytes()).expect("JSON");
    let field = operation.root_fields(document).next().expect("a root field");
    let coordinate = format!("Subscription.{}", field.name);
    let room = Room::new(usize::MAX);
    let coerced = super::variables(&schema, operation, document, &given, &room)
        .and_then(|variables| arguments(&schema, &field.definition, &coordinate, field, document, &variables, &room));
    let coerced = coerced.map_err(|errors| {
        assert!(errors.iter().all(|error| error.code == "BAD_USER_INPUT"));
        describe(&errors)
    });
    Ok(Value::Object(coerced?).to_json())
}

/// The value of one argument, given as a variable of its type and as a literal.
#[test]
fn variables_and_literals() {
    // Argument, its type, JSON, literal, and what both become: (JSON's, the literal's) where they differ.
    let same = |value: &'static str| (Ok(value), Ok(value));
    let wrong = |json: &'static str| (Err(json), Err(""));
    for (name, ty, json, literal, (expected_json, expected_literal)) in [
        ("int", "Int", "1", "1", same("1")),
        ("int", "Int", "-2147483648", "-2147483648", same("-2147483648")),
        (
            "int",
            "Int",
            "2147483648",
            "2147483648",
            wrong("2147483648; Int cannot represent non 32-bit signed integer value: 2147483648"),
        ),
        (
            "int",
            "Int",
            "123456789012345678901234567890",
            "123456789012345678901234567890",
            wrong(
                "123456789012345678901234567890; Int cannot represent non 32-bit signed integer value: 123456789012345678901234567890",
            ),
        ),
        ("int", "Int", "1.0", "1.0", (Ok("1"), Err(""))),
        ("int", "Int", "1e3", "1e3", (Ok("1000"), Err(""))),
        ("int", "Int", "1.5", "1.5", wrong("1.5; Int cannot represent non-integer value: 1.5")),
        ("int", "Int", "\"a\"", "\"a\"", wrong("'a'; Int cannot represent non-integer value: 'a'")),
        ("int", "Int", "true", "true", wrong("True; Int cannot represent non-integer value: True")),
        ("int", "Int", "[1]", "[1]", wrong("[1]; Int cannot represent non-integer value: [1]")),
        ("int", "Int", "null", "null", same("null")),
        ("float", "Float", "1", "1", same("1.0")),
        ("float", "Float", "1.5e3", "1.5e3", same("1500.0")),
        (
            "float",
            "Float",
            "123456789012345678901234567890",
            "123456789012345678901234567890",
            (
                Err(
                    "123456789012345678901234567890; Float cannot represent non numeric value: 123456789012345678901234567890",
                ),
                Ok("1.2345678901234568e+29"),
            ),
        ),
        ("float", "Float", "1e400", "1e400", wrong("1e+400; Float cannot represent non numeric value: 1e+400")),
        ("float", "Float", "\"1\"", "\"1\"", wrong("'1'; Float cannot represent non numeric value: '1'")),
        ("float", "Float", "false", "false", wrong("False; Float cannot represent non numeric value: False")),
        ("string", "String", "\"a\"", "\"a\"", same("\"a\"")),
        ("string", "String", "\"a\\n\\u00e9\"", "\"\"\"\n  a\n  é\n\"\"\"", same("\"a\\né\"")),
        ("string", "String", "1", "1", wrong("1; String cannot represent a non string value: 1")),
        ("string", "String", "{}", "{}", wrong("{}; String cannot represent a non string value: {}")),
        ("string", "String", "\"it's\"", "E", (Ok("\"it's\""), Err(""))),
        ("boolean", "Boolean", "true", "true", same("true")),
        ("boolean", "Boolean", "1", "1", wrong("1; Boolean cannot represent a non boolean value: 1")),
        (
            "boolean",
            "Boolean",
            "\"true\"",
            "\"true\"",
            wrong("'true'; Boolean cannot represent a non boolean value: 'true'"),
        ),
        ("id", "ID", "\"a\"", "\"a\"", same("\"a\"")),
        ("id", "ID", "1", "1", same("\"1\"")),
        ("id", "ID", "-0", "-0", (Ok("\"0\""), Ok("\"-0\""))),
        ("id", "ID", "1.0", "1.0", (Ok("\"1\""), Err(""))),
        (
            "id",
            "ID",
            "123456789012345678901234567890",
            "123456789012345678901234567890",
            same("\"123456789012345678901234567890\""),
        ),
        ("id", "ID", "1.5", "1.5", wrong("1.5; ID cannot represent value: 1.5")),
        ("id", "ID", "true", "true", wrong("True; ID cannot represent value: True")),
        ("color", "Color", "\"RED\"", "RED", same("\"RED\"")),
        ("color", "Color", "\"BLUE\"", "BLUE", wrong("'BLUE'; Value 'BLUE' does not exist in 'Color' enum.")),
        ("color", "Color", "1", "\"RED\"", wrong("1; Enum 'Color' cannot represent non-string value: 1.")),
        ("ints", "[Int]", "[1, null, 2]", "[1, null, 2]", same("[1,null,2]")),
        ("ints", "[Int]", "3", "3", same("[3]")),
        ("ints", "[Int]", "null", "null", same("null")),
        (
            "ints",
            "[Int]",
            "[1, \"a\"]",
            "[1, \"a\"]",
            wrong("'a' at 'v[1]'; Int cannot represent non-integer value: 'a'"),
        ),
        ("grid", "[[Int!]]", "1", "1", same("[[1]]")),
        ("grid", "[[Int!]]", "[1, [2, 3], null]", "[1, [2, 3], null]", same("[[1],[2,3],null]")),
        (
            "grid",
            "[[Int!]]",
            "[[null]]",
            "[[null]]",
            wrong("None at 'v[0][0]'; Expected non-nullable type 'Int!' not to be None."),
        ),
        ("ids", "[ID!]", "[1, \"b\"]", "[1, \"b\"]", same("[\"1\",\"b\"]")),
        (
            "point",
            "Point",
            r#"{"xCoord": 1}"#,
            "{xCoord: 1}",
            same(r#"{"x_coord":1,"y_coord":2,"color":"RED","tags":["a"]}"#),
        ),
        (
            "point",
            "Point",
            r#"{"xCoord": 1, "yCoord": null, "tags": "z", "json": {"aB": [1.50]}}"#,
            "{xCoord: 1, yCoord: null, tags: \"z\", json: {aB: [1.50]}}",
            same(r#"{"x_coord":1,"y_coord":null,"color":"RED","tags":["z"],"json":{"aB":[1.5]}}"#),
        ),
        ("point", "Point", "{}", "{}", wrong("{}; Field 'xCoord' of required type 'Int!' was not provided.")),
        (
            "point",
            "Point",
            r#"{"xCoord": null}"#,
            "{xCoord: null}",
            wrong("None at 'v.xCoord'; Expected non-nullable type 'Int!' not to be None."),
        ),
        (
            "point",
            "Point",
            r#"{"x_coord": 1}"#,
            "{xCoord: 1, zCoord: 1}",
            wrong(
                "{'x_coord': 1}; Field 'x_coord' is not defined by type 'Point'. [(1, 14)] | Variable '$v' got invalid value {'x_coord': 1}; Field 'xCoord' of required type 'Int!' was not provided.",
            ),
        ),
        ("point", "Point", "[]", "[]", wrong("[]; Expected type 'Point' to be a mapping.")),
        (
            "points",
            "[Point!]",
            r#"{"xCoord": 1, "tags": null}"#,
            "{xCoord: 1, tags: null}",
            same(r#"[{"x_coord":1,"y_coord":2,"color":"RED","tags":null}]"#),
        ),
        (
            "points",
            "[Point!]",
            r#"[{"xCoord": 1}, {"xCoord": "a"}]"#,
            "[{xCoord: 1}, {xCoord: \"a\"}]",
            wrong("'a' at 'v[1].xCoord'; Int cannot represent non-integer value: 'a'"),
        ),
        ("one", "One", r#"{"a": 1}"#, "{a: 1}", same(r#"{"a":1}"#)),
        ("one", "One", r#"{"c": {}}"#, "{c: {}}", same(r#"{"c":{"a_field":1}}"#)),
        (
            "one",
            "One",
            r#"{"a": 1, "b": "x"}"#,
            "{a: 1, b: \"x\"}",
            wrong("{'a': 1, 'b': 'x'}; Exactly one key must be specified for OneOf type 'One'."),
        ),
        (
            "one",
            "One",
            r#"{"a": 1, "b": null}"#,
            "{a: 1, b: null}",
            wrong("{'a': 1, 'b': None}; Exactly one key must be specified for OneOf type 'One'."),
        ),
        ("one", "One", r#"{"a": null}"#, "{a: null}", wrong("{'a': None}; Field 'a' must be non-null.")),
        ("one", "One", "{}", "{}", wrong("{}; Exactly one key must be specified for OneOf type 'One'.")),
        (
            "json",
            "JSON",
            r#"{"b":[1,2.5,"x",true,null]}"#,
            "{b: [1, 2.5, \"x\", true, null]}",
            same(r#"{"b":[1,2.5,"x",true,null]}"#),
        ),
        ("json", "JSON", "12345678901234567890", "12345678901234567890", same("12345678901234567890")),
        ("json", "JSON", "\"RED\"", "RED", same("\"RED\"")),
        ("other", "Other", "[{}]", "[{}]", same("[{}]")),
        ("date", "Date", "\"2026-02-28\"", "\"2026-02-28\"", same("\"2026-02-28\"")),
        (
            "date",
            "Date",
            "\"2026-02-30\"",
            "\"2026-02-30\"",
            (
                Err("'2026-02-30'; Date cannot represent value: '2026-02-30'"),
                Err(
                    "Argument 'date' got invalid value \"2026-02-30\"; Date cannot represent value: \"2026-02-30\" [(1, 24)]",
                ),
            ),
        ),
        ("date", "Date", "\"2026-2-3\"", "20260203", wrong("'2026-2-3'; Date cannot represent value: '2026-2-3'")),
        (
            "date",
            "Date",
            "\"+2026-2-3\"",
            "\"0000-01-01\"",
            wrong("'+2026-2-3'; Date cannot represent value: '+2026-2-3'"),
        ),
        ("time", "Time", "\"12:30\"", "\"12:30:00\"", same("\"12:30:00\"")),
        ("time", "Time", "\"12:30:01.25+02:00\"", "\"12:30:01.250000+02:00\"", same("\"12:30:01.250000+02:00\"")),
        ("time", "Time", "\"23:59:60\"", "\"24:00:00\"", wrong("'23:59:60'; Time cannot represent value: '23:59:60'")),
        (
            "at",
            "DateTime",
            "\"2026-01-01T00:00:00Z\"",
            "\"2026-01-01 00:00:00+00:00\"",
            same("\"2026-01-01T00:00:00+00:00\""),
        ),
        (
            "at",
            "DateTime",
            "\"2026-01-01T00:00:00.1234567-05:30\"",
            "\"2026-01-01T00:00:00.123456-05:30\"",
            same("\"2026-01-01T00:00:00.123456-05:30\""),
        ),
        ("at", "DateTime", "\"2026-01-01T00:00\"", "\"2026-01-01T00:00:00\"", same("\"2026-01-01T00:00:00\"")),
        (
            "at",
            "DateTime",
            "\"yesterday\"",
            "1767225600",
            wrong("'yesterday'; DateTime cannot represent value: 'yesterday'"),
        ),
        (
            "at",
            "DateTime",
            "\"2026-01-01T00:00:00é\"",
            "\"éééééééééé\"",
            wrong("'2026-01-01T00:00:00é'; DateTime cannot represent value: '2026-01-01T00:00:00é'"),
        ),
        (
            "uuid",
            "UUID",
            "\"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11\"",
            "\"a0eebc999c0b4ef8bb6d6bb9bd380a11\"",
            same("\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
        ),
        ("uuid", "UUID", "\"x\"", "1", wrong("'x'; UUID cannot represent value: 'x'")),
        ("decimal", "Decimal", "\"1.10\"", "\"1.10\"", same("\"1.10\"")),
        ("decimal", "Decimal", "1.5", "1.5", same("1.5")),
        (
            "decimal",
            "Decimal",
            "12345678901234567890",
            "12345678901234567890.5",
            (Ok("12345678901234567890"), Ok("12345678901234567890.5")),
        ),
        ("decimal", "Decimal", "\"NaN\"", "\"1_0\"", wrong("'NaN'; Decimal cannot represent value: 'NaN'")),
        ("decimal", "Decimal", "true", "RED2", wrong("True; Decimal cannot represent value: True")),
    ] {
        let expected = |value: &str| format!("{{\"{name}\":{value}}}");
        let found = coerce(&format!("subscription($v: {ty}) {{ f({name}: $v) }}"), &format!("{{\"v\": {json}}}"));
        let expected_json =
            expected_json.map(expected).map_err(|text| format!("Variable '$v' got invalid value {text} [(1, 14)]"));
        assert_eq!(found, expected_json, "{ty} {json}");
        let found = coerce(&format!("subscription {{ f({name}: {literal}) }}"), "{}");
        match (&found, expected_literal) {
            (Ok(found), Ok(value)) => assert_eq!(*found, expected(value), "{ty} {literal}"),
            (Err(found), Err(text)) => assert!(text.is_empty() || found == text, "{ty} {literal}: {found}"),
            _ => panic!("{ty} {literal}: {found:?}"),
        }
    }
}

#[test]
fn variables_that_are_missing_or_null() {
    for (query, variables, expected) in [
        ("($v: One = {b: null}) { f(one: $v) }", r#"{"v": {"a": 1}}"#, Err("invalid: ")),
        ("($v: One = {c: {aField: 1, aField: 2}}) { f(one: $v) }", r#"{"v": {"a": 1}}"#, Err("invalid: ")),
        ("($v: Float) { f(float: $v) }", r#"{"v": 9007199254740992}"#, Ok(r#"{"float":9007199254740992.0}"#)),
        (
            "($v: Float) { f(float: $v) }",
            r#"{"v": 9007199254740993}"#,
            Err(
                "Variable '$v' got invalid value 9007199254740993; Float cannot represent non numeric value: 9007199254740993 [(1, 15)]",
            ),
        ),
        ("($v: Int!) { f(int: $v) }", "{}", Err("Variable '$v' of required type 'Int!' was not provided. [(1, 15)]")),
        (
            "($v: Int!) { f(int: $v) }",
            r#"{"v": null}"#,
            Err("Variable '$v' of non-null type 'Int!' must not be null. [(1, 15)]"),
        ),
        ("($v: Int! = 3) { f(int: $v) }", "{}", Ok(r#"{"int":3}"#)),
        ("($v: Int = 3) { f(int: $v) }", r#"{"v": null}"#, Ok(r#"{"int":null}"#)),
        ("($v: Int) { f(int: $v) }", "{}", Ok("{}")),
        ("($v: [Point] = {xCoord: 5}) { f(json: $v) }", "{}", Err("invalid: ")),
        (
            "($v: Point = {xCoord: 5}) { f(point: $v) }",
            "{}",
            Ok(r#"{"point":{"x_coord":5,"y_coord":2,"color":"RED","tags":["a"]}}"#),
        ),
        ("($v: Int) { f(ints: [1, $v]) }", "{}", Ok(r#"{"ints":[1,null]}"#)),
        ("($v: Int) { f(ints: [1, $v]) }", r#"{"v": 2}"#, Ok(r#"{"ints":[1,2]}"#)),
        ("($v: Int) { f(ints: $v) }", r#"{"v": 2}"#, Err("invalid: ")),
        (
            "($v: Int) { f(point: {xCoord: 1, yCoord: $v}) }",
            "{}",
            Ok(r#"{"point":{"x_coord":1,"y_coord":2,"color":"RED","tags":["a"]}}"#),
        ),
        (
            "($v: Int) { f(point: {xCoord: 1, yCoord: $v}) }",
            r#"{"v": null}"#,
            Ok(r#"{"point":{"x_coord":1,"y_coord":null,"color":"RED","tags":["a"]}}"#),
        ),
        (
            "($v: String!) { f(point: {xCoord: 1, tags: [$v, \"b\"]}) }",
            r#"{"v": "a"}"#,
            Ok(r#"{"point":{"x_coord":1,"y_coord":2,"color":"RED","tags":["a","b"]}}"#),
        ),
        ("($v: Int, $w: [Int]) { f(json: {a: $v, b: [$v, $w]}) }", r#"{"w": [1]}"#, Ok(r#"{"json":{"b":[null,[1]]}}"#)),
        (
            "($v: Int = 1) { required(intNeeded: $v) }",
            r#"{"v": null}"#,
            Err("Argument 'intNeeded' of non-null type 'Int!' must not be null. [(1, 50)]"),
        ),
        (
            "($v: Int) { required(intNeeded: 1, withDefault: $v) }",
            "{}",
            Ok(r#"{"int_needed":1,"with_default":7,"deep":{"inner":{"a_field":1}}}"#),
        ),
        (
            "{ required(intNeeded: 1, deep: {}) }",
            "{}",
            Ok(r#"{"int_needed":1,"with_default":7,"deep":{"inner":{"a_field":1,"b":3}}}"#),
        ),
        ("($v: Int!) { f(one: {a: $v}) }", r#"{"v": 1}"#, Ok(r#"{"one":{"a":1}}"#)),
        // Not in apollo-compiler: positions inside lists and objects.
        (
            "($v: Int) { required(intNeeded: 1, strict: {list: [$v]}) }",
            "{}",
            Err("invalid: Variable '$v' of type 'Int' used in position expecting type 'Int!'. [(1, 65)]"),
        ),
        (
            "($v: [Int]) { required(intNeeded: 1, strict: {list: $v}) }",
            "{}",
            Err("invalid: Variable '$v' of type '[Int]' used in position expecting type '[Int!]!'. [(1, 66)]"),
        ),
        (
            "($v: Int = null) { required(intNeeded: $v) }",
            "{}",
            Err("invalid: Variable '$v' of type 'Int' used in position expecting type 'Int!'. [(1, 53)]"),
        ),
        (
            "($v: Int) { f(one: {a: $v}) }",
            "{}",
            Err("invalid: Variable '$v' must be non-nullable to be used for OneOf Input Object 'One'. [(1, 37)]"),
        ),
        ("{ f(json: {a: [$nowhere]}) }", "{}", Err("invalid: Variable '$nowhere' is not defined. [(1, 29)]")),
        ("{ f(point: {xCoord: 1, xCoord: 2}) }", "{}", Err("invalid: ")),
        ("{ f(json: {a: 1, a: 2}) }", "{}", Err("invalid: ")),
        (
            "{ f(string: \"a\\u0000\") }",
            "{}",
            Err("Argument 'string' got invalid value \"a\\u0000\"; String cannot hold NUL: \"a\\u0000\" [(1, 26)]"),
        ),
        (
            "{ f(id: \"a\\u0000\") }",
            "{}",
            Err("Argument 'id' got invalid value \"a\\u0000\"; ID cannot hold NUL: \"a\\u0000\" [(1, 22)]"),
        ),
        (
            "{ f(json: {a: [\"a\\u0000\"]}) }",
            "{}",
            Err(
                "Argument 'json' got invalid value {a: [\"a\\u0000\"]}; JSON cannot hold NUL: {a: [\"a\\u0000\"]} [(1, 24)]",
            ),
        ),
        ("{ f(string: \"\\uD800\") }", "{}", Err("invalid: ")),
    ] {
        let found = coerce(&format!("subscription {query}"), variables);
        match (&found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{query}"),
            (Err(found), Err("invalid: ")) => assert!(found.starts_with("invalid: "), "{query} {found}"),
            (Err(found), Err(expected)) => assert_eq!(found, expected, "{query}"),
            _ => panic!("{query}: {found:?}"),
        }
    }
}

#[test]
fn errors_are_counted_and_cut() {
    let wrong = vec!["\"x\""; 5_000].join(",");
    let found = coerce("subscription($v: [Int]) { f(ints: $v) }", &format!("{{\"v\": [{wrong}]}}")).expect_err("wrong");
    assert_eq!(found.matches("Int cannot represent").count(), MAX_ERRORS);
    assert!(found.ends_with("Too many errors, error limit reached. []"), "{found}");
    let long = "é".repeat(5_000);
    let found = coerce("subscription($v: Int) { f(int: $v) }", &format!("{{\"v\": [\"{long}\"]}}")).expect_err("wrong");
    assert!(found.len() < 600, "{}", found.len());
}

/// The allocations of coercing the variable `$v` of a type, how many bytes they took, and whether it was refused.
fn spent(ty: &str, argument: &str, json: &str) -> (u64, u64, bool) {
    let schema = schema(SDL);
    let query = format!("subscription($v: {ty}) {{ f({argument}: $v) }}");
    let document = Document::parse(&schema, &limits(), &query, None).expect("valid").executable;
    let operation = document.operations.get(None).expect("one operation");
    let given = Value::Object([("v".into(), Value::parse(json.as_bytes()).expect("JSON"))].into_iter().collect());
    let mut is_refused = false;
    let spent = allocation_counter::measure(|| {
        is_refused = super::variables(&schema, operation, &document, &given, &Room::new(usize::MAX)).is_err();
    });
    (spent.count_total, spent.bytes_total, is_refused)
}

/// Whoever sends nonsense is told of some of it, and no more is looked at, shown or kept.
#[test]
fn refusing_costs_no_more_than_what_is_told() {
    let many = |one: &dyn Fn(usize) -> String| (0..20_000).map(one).collect::<Vec<_>>().join(",");
    let long = "x".repeat(200_000);
    let digits = "9".repeat(200_000);
    let unknown = many(&|at| format!("\"unknown{at}\":0"));
    for (ty, argument, json) in [
        ("Point", "point", format!("{{{unknown}}}")),
        ("Point", "point", format!("{{\"xCoord\":{{{unknown}}}}}")),
        ("[Point!]", "points", format!("[{}]", many(&|_| "{\"z\":0}".into()))),
        ("[Point!]", "points", format!("[{}]", many(&|_| "{}".into()))),
        ("[Int]", "ints", format!("[{}]", many(&|_| "\"x\"".into()))),
        ("[ID!]", "ids", format!("[{}]", many(&|_| "null".into()))),
        ("One", "one", format!("{{{unknown}}}")),
        ("Point", "point", format!("{{\"{long}\":0}}")),
        ("Color", "color", format!("\"{long}\"")),
        ("[Int]", "ints", format!("[\"{}\"]", vec![long.as_str(); 60].join("\",\""))),
        ("Point", "point", format!("{{\"a\":{digits},{}}}", many(&|at| format!("\"b{at}\":0")))),
    ] {
        let (count, bytes, is_refused) = spent(ty, argument, &json);
        let beginning = &json[..30];
        assert!(is_refused, "{ty} {beginning}");
        // A list has room for all of its items at once.
        assert!(count < 1_500 && bytes < 2_000_000, "{ty} {beginning}: {count} allocations, {bytes} bytes");
    }
}

/// Names and defaults of an input object are looked up for its type, not for each value.
#[test]
fn an_element_costs_what_is_made_of_it() {
    let elements = |count| format!("[{}]", vec!["{\"xCoord\":1}"; count].join(","));
    let [few, many] = [1_000, 11_000].map(|count| spent("[Point!]", "points", &elements(count)));
    assert!(!few.2 && !many.2);
    // The object, five names, and what two defaults hold.
    assert!((many.0 - few.0) / 10_000 <= 13, "{}", (many.0 - few.0) / 10_000);
}
