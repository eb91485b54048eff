// node driver.mjs CLIENT URL COUNT: what a user's page does, with one of the stock clients; prints JSON lines.
//
// A client is a module with connect(url, payload), which answers { subscribe(query, variables, sink), close() };
// subscribe returns a function that ends the subscription.
const [name, url, count] = process.argv.slice(2);
const { connect } = await import(`./${name}.mjs`);

const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const fail = (error) => {
  print({ failed: String(error?.message ?? JSON.stringify(error)), error });
  process.exit(1);
};

const client = connect(url, { token: "secret" });
const tick = "subscription { tick { n text } }";

// COUNT events; then the client completes.
await new Promise((resolve) => {
  let left = Number(count);
  const end = client.subscribe(tick, {}, {
    next: (result) => {
      print(result);
      if (--left === 0) resolve(end());
    },
    error: fail,
  });
});
print({ ended: "client" });

// A few more; then the server completes.
await new Promise((complete) =>
  client.subscribe("subscription ($start: Int!) { countdown(start: $start) }", { start: 3 }, { next: print, error: fail, complete }),
);
print({ ended: "server" });

// Whatever comes, also after the server has been away; until nobody listens to us.
client.subscribe(tick, {}, { next: print, error: fail });
process.stdin.resume().on("end", async () => {
  await client.close();
  process.exit(0);
});
