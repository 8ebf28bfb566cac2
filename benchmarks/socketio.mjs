// A socket.io server that sends the text of a POST to all sockets. The port is its argument.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", () => {
    io.emit("message", body);
    response.writeHead(204).end();
  });
});
const io = new Server(http, { transports: ["websocket"] });
http.listen(Number(process.argv[2]), "127.0.0.1", 4096);
