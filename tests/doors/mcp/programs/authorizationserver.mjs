// Two authorization servers with the same clients, on ports of their own: `authorizationserver.mjs REDIRECT_URI`.
// Prints their issuers. Anyone may log in by any name. The resource that is asked for says what kind of token comes.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const [redirectUri] = process.argv.slice(2);

function configuration() {
  const key = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  return {
    clients: [
      {
        client_id: "coder-client",
        token_endpoint_auth_method: "none",
        redirect_uris: [redirectUri],
        grant_types: ["authorization_code"],
      },
      {
        client_id: "machine",
        client_secret: "secret",
        grant_types: ["client_credentials"],
        response_types: [],
        redirect_uris: [],
      },
    ],
    clientDefaults: { id_token_signed_response_alg: "ES256" },
    jwks: { keys: [{ ...key, alg: "ES256", use: "sig" }] },
    pkce: { required: () => true },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    formats: {
      customizers: {
        jwt(_, token, { payload }) {
          if (!token.resourceServer.identifier().endsWith("kind=expired")) return;
          payload.iat -= 3600;
          payload.exp -= 3600;
        },
      },
    },
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => {
          const kind = new URL(resource).searchParams.get("kind");
          return {
            scope: "tools",
            audience: resource.split("?")[0],
            accessTokenFormat: kind === "opaque" ? "opaque" : "jwt",
            accessTokenTTL: 600,
            jwt: { sign: { alg: "ES256" } },
          };
        },
      },
    },
  };
}

async function issuer() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${server.address().port}`;
  server.on("request", new Provider(url, configuration()).callback());
  return url;
}

// It warns that it keeps nothing, and that anyone may log in.
for (const name of ["info", "log", "warn"]) console[name] = () => {};
console.error(await issuer(), await issuer());
