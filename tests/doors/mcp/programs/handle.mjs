// Loaded before the conformance package, which cannot be told to send a header: adds that of a session to each request.
import http from "node:http";
import { getGlobalDispatcher, setGlobalDispatcher } from "undici";

const NAME = "x-pdp-session";
const HANDLE = process.env.SESSION_HANDLE;
const withHandle = (headers) => (Array.isArray(headers) ? [...headers, NAME, HANDLE] : { ...headers, [NAME]: HANDLE });

setGlobalDispatcher(
  getGlobalDispatcher().compose(
    (dispatch) => (options, handler) => dispatch({ ...options, headers: withHandle(options.headers) }, handler),
  ),
);
const request = http.request;
http.request = (...words) => {
  const made = request(...words);
  made.setHeader(NAME, HANDLE);
  return made;
};
