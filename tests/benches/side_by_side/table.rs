//! The table that is printed.

/// What was measured, what came out, and what it is beside.
pub struct Row {
    what: String,
    measured: String,
    beside: String,
}

impl Row {
    pub fn of(what: &str, measured: String, beside: &str) -> Self {
        Self { what: what.to_owned(), measured, beside: beside.to_owned() }
    }
}

pub fn print(rows: &[Row]) {
    println!(
        "\nSame machine, same disk, same client (HTTP/1.1, one request at a time on each connection, 256-byte values,"
    );
    println!(
        "a sync before each answer). etcd: JSON gateway in clear. kactor: Kubernetes API over TLS.\n"
    );
    let width =
        |cell: fn(&Row) -> &str| rows.iter().map(|it| cell(it).chars().count()).max().unwrap_or(0);
    let (what, measured) = (width(|it| &it.what), width(|it| &it.measured));
    for row in rows {
        println!("{:<what$}  {:<measured$}  {}", row.what, row.measured, row.beside);
    }
}
