// @apollo/client over its GraphQLWsLink; the connection closes with its last subscription.
import { ApolloClient, InMemoryCache, gql } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { createClient } from "graphql-ws";
import { options } from "./graphql-ws.mjs";

export function connect(url, payload) {
  const socket = createClient(options(url, payload));
  const client = new ApolloClient({ link: new GraphQLWsLink(socket), cache: new InMemoryCache() });
  return {
    subscribe(query, variables, { next, error, complete }) {
      const subscription = client.subscribe({ query: gql(query), variables }).subscribe({
        next: (result) => (result.error ? error(result.error) : next({ data: result.data })),
        error,
        complete,
      });
      return () => subscription.unsubscribe();
    },
    close: async () => {
      client.stop();
      await socket.dispose();
    },
  };
}
