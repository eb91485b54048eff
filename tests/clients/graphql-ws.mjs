// graphql-ws, with one connection that stays open between subscriptions.
import { createClient } from "graphql-ws";
import WebSocket from "ws";

/** The options that all three node clients use: they differ in what is built on top. */
export const options = (url, payload) => ({
  url,
  webSocketImpl: WebSocket,
  connectionParams: payload,
  retryAttempts: Infinity,
  shouldRetry: () => true,
  retryWait: () => new Promise((resolve) => setTimeout(resolve, 50)),
});

export function connect(url, payload) {
  const client = createClient({ ...options(url, payload), lazy: false, keepAlive: 500 });
  return {
    subscribe: (query, variables, sink) =>
      client.subscribe({ query, variables }, { complete: () => {}, ...sink }),
    close: () => client.dispose(),
  };
}
