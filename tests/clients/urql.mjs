// @urql/core with its subscription exchange over graphql-ws.
import { Client, subscriptionExchange } from "@urql/core";
import { createClient } from "graphql-ws";
import { onEnd, pipe, subscribe } from "wonka";
import { options } from "./graphql-ws.mjs";

export function connect(url, payload) {
  const socket = createClient(options(url, payload));
  const forwardSubscription = ({ query, variables }) => ({
    subscribe: (sink) => ({ unsubscribe: socket.subscribe({ query, variables }, sink) }),
  });
  const client = new Client({
    url: "http://127.0.0.1/unused",
    preferGetMethod: false,
    exchanges: [subscriptionExchange({ forwardSubscription })],
  });
  return {
    subscribe(query, variables, { next, error, complete }) {
      const { unsubscribe } = pipe(
        client.subscription(query, variables),
        onEnd(() => complete?.()),
        subscribe((result) => {
          if (result.error) error(result.error);
          else if (result.hasNext) next({ data: result.data }); // without it, the last one again: the end
        }),
      );
      return unsubscribe;
    },
    close: () => socket.dispose(),
  };
}
