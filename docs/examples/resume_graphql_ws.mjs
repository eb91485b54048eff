// graphql-ws that goes on where it was after a lost connection: nothing lost, nothing twice.
import { createClient } from "graphql-ws";

/**
 * As graphql-ws's `createClient`. `lost()` is called where events are gone for good: fetch again what you show.
 * Whatever is published after that call reaches the subscription.
 */
export function createResumingClient({ lost, ...options }) {
  const client = createClient({ lazy: true, retryAttempts: Infinity, shouldRetry: () => true, ...options });
  let acknowledged; // a token for the moment of the last ack; none on a bus without history
  client.on("connected", (socket, payload) => (acknowledged = payload?.resume));

  function subscribe(request, sink) {
    let token, end;
    const resume = () => {
      const after = token;
      token ??= acknowledged; // until a message brings its own
      return after ? { after } : Boolean(token);
    };
    const start = () => {
      // graphql-ws writes the request again on each connection, and asks for `resume` then.
      const extensions = { ...request.extensions, get resume() { return resume(); } };
      end = client.subscribe({ ...request, extensions }, {
        next: (result) => {
          token = result.extensions?.eventId ?? token;
          sink.next(result);
          if (result.extensions?.gap || result.extensions?.dropped) lost();
        },
        error: (errors) => {
          const code = errors[0]?.extensions?.code;
          if (code === "HISTORY_LOST") {
            token = token === acknowledged ? undefined : acknowledged;
            start();
            lost();
          } else if (code === "BUS_UNAVAILABLE") {
            const later = setTimeout(start, 1_000);
            end = () => clearTimeout(later);
          } else sink.error(errors);
        },
        complete: () => sink.complete(),
      });
    };
    start();
    return () => end();
  }
  return { ...client, subscribe };
}
