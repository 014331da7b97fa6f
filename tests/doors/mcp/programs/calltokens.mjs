// Verifies call tokens as a tool server in JavaScript does: with the library `jose`, and without a line of the product.
// Reads `{jwks, issuer, audience, now, calls: [{token, server, tool, arguments}]}` from stdin; prints for each call the
// claims, or why it is refused.
import { createHash } from "node:crypto";
import { text } from "node:stream/consumers";
import { createLocalJWKSet, jwtVerify } from "jose";

// RFC 8785: the numbers and texts of JavaScript, and names in the order of their UTF-16 units, as `sort` has it.
function canonical(value) {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`;
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join()}}`;
}

function digest(said, salt) {
  const hash = createHash("sha256").update(Buffer.from(salt, "base64url"));
  return `sha256:${hash.update(canonical(JSON.parse(said))).digest("hex")}`;
}

const { jwks, issuer, audience, now, calls } = JSON.parse(await text(process.stdin));
const keys = createLocalJWKSet(jwks);
const options = {
  algorithms: ["Ed25519"],
  typ: "pdp-call+jwt",
  issuer,
  audience,
  currentDate: new Date(now * 1000),
  maxTokenAge: 60,
  requiredClaims: ["exp", "jti"],
};

async function verified(call) {
  const { payload } = await jwtVerify(call.token, keys, options);
  // The library takes a list of audiences with ours in it.
  if (payload.aud !== audience) throw new Error("for several audiences");
  if (payload.srv !== call.server || payload.tool !== call.tool) throw new Error("for another tool");
  if (payload.args !== digest(call.arguments, payload.salt)) throw new Error("for other arguments");
  return payload;
}

const answers = calls.map((call) => verified(call).then((claims) => ({ claims }), (error) => ({ refused: error.message })));
console.log(JSON.stringify(await Promise.all(answers)));
