/* The lower bound of a fan-out on this machine: a bare loop that writes one frame to every socket.
 *
 * Implements just enough of WebSocket for the load client: any GET is an upgrade, any POST a message
 * for all sockets. Has no closing handshake, no limits, and no handling of slow readers. The port is
 * its only argument.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536
static const char upgrade[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
static const char accepted[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
static int members[MOST], count;

static void fan_out(const char *text, size_t length) {
    unsigned char frame[65536];
    size_t n = 2;
    frame[0] = 0x81;
    if (length < 126) {
        frame[1] = length;
    } else {
        frame[1] = 126;
        frame[2] = length >> 8;
        frame[3] = length;
        n = 4;
    }
    memcpy(frame + n, text, length);
    for (int i = 0; i < count; i++)
        if (write(members[i], frame, n + length) != (ssize_t)(n + length)) exit(2);
}

int main(int argc, char **argv) {
    if (argc != 2) return 1;
    struct rlimit files = {MOST, MOST}, had;
    getrlimit(RLIMIT_NOFILE, &had);
    if (had.rlim_cur < MOST && setrlimit(RLIMIT_NOFILE, &files)) {
        had.rlim_cur = had.rlim_max;
        setrlimit(RLIMIT_NOFILE, &had);
    }
    int server = socket(AF_INET, SOCK_STREAM, 0), one = 1, epoll = epoll_create1(0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(server, (struct sockaddr *)&at, sizeof at) || listen(server, 1024)) return 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = server};
    epoll_ctl(epoll, EPOLL_CTL_ADD, server, &event);
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == server) {
                fd = accept4(server, NULL, NULL, SOCK_NONBLOCK);
                if (fd < 0) continue;
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event.data.fd = fd;
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
                continue;
            }
            char request[65536];
            ssize_t length = read(fd, request, sizeof request);
            char *end = length > 0 ? memmem(request, length, "\r\n\r\n", 4) : NULL;
            if (length <= 0) {
                for (int k = 0; k < count; k++)
                    if (members[k] == fd) members[k--] = members[--count];
                close(fd);
            } else if (!strncmp(request, "GET", 3)) {
                if (write(fd, upgrade, sizeof upgrade - 1) < 0 || count == MOST) return 2;
                members[count++] = fd;
            } else if (!strncmp(request, "POST", 4) && end) {
                fan_out(end + 4, request + length - end - 4);
                if (write(fd, accepted, sizeof accepted - 1) < 0) return 2;
            }
        }
    }
}
