//! Asks for a URL with reqwest, whose roots are compiled in, and prints what it got. A second
//! argument names a file with one more root, as many programs let their users do.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("no URL")?;
    let mut client = reqwest::blocking::Client::builder();
    if let Some(file) = arguments.next() {
        for root in reqwest::Certificate::from_pem_bundle(&std::fs::read(file)?)? {
            client = client.add_root_certificate(root);
        }
    }
    let answer = client.build()?.get(url).send()?;
    println!("{:?} {} ", answer.version(), answer.status());
    let failed = answer.status() != 200;
    println!("{}", answer.text()?);
    std::process::exit(i32::from(failed));
}
