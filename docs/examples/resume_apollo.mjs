// Apollo Client that goes on where it was after a lost connection.
import { ApolloClient, ApolloLink, InMemoryCache } from "@apollo/client";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { OperationTypeNode } from "graphql";
import { createResumingClient } from "./resume_graphql_ws.mjs";

/** `queries` is the link for queries and mutations, an `HttpLink`; the other options are graphql-ws's. */
export function createApolloClient({ queries, ...options }) {
  // Queries that a component shows are fetched again.
  const lost = () => client.refetchQueries({ include: "active" });
  const subscriptions = new GraphQLWsLink(createResumingClient({ lost, ...options }));
  const isSubscription = ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION;
  const link = ApolloLink.split(isSubscription, subscriptions, queries);
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  return client;
}
