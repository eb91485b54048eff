// node resuming.mjs CLIENT URL: a page that shows ticks, by one of the documented clients that resume; prints JSON lines.
//
// It stands beside the example that it uses, in a folder that the test makes.
import { ApolloLink, gql } from "@apollo/client";
import { of } from "rxjs";
import WebSocket from "ws";

const [name, url] = process.argv.slice(2);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const fail = (error) => {
  print({ failed: String(error?.message ?? JSON.stringify(error)) });
  process.exit(1);
};
const next = ({ data, error }) => (error ? fail(error) : print(data.tick.n));
const lost = () => print("lost");
const sink = { next, error: fail, complete: () => {} };

const retryWait = () => new Promise((resolve) => setTimeout(resolve, 20));
const options = { url, webSocketImpl: WebSocket, retryWait };
const tick = "subscription { tick { n } }";

let end;
if (name === "graphql-ws") {
  const { createResumingClient } = await import("./resume_graphql_ws.mjs");
  end = createResumingClient({ lost, ...options }).subscribe({ query: tick }, sink);
} else {
  const { createApolloClient } = await import("./resume_apollo.mjs");
  let fetched = 0;
  const queries = new ApolloLink(() => of({ data: { fetched: ++fetched } }));
  const client = createApolloClient({ queries, ...options });
  client.watchQuery({ query: gql("{ fetched }") }).subscribe(({ data }) => data?.fetched > 1 && lost());
  const subscription = client.subscribe({ query: gql(tick) }).subscribe(sink);
  end = () => subscription.unsubscribe();
}
process.stdin.resume().on("end", () => end());
