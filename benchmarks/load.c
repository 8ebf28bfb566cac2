/* The load client of the benchmarks: many WebSocket clients in one epoll loop.
 *
 * Compiled and controlled by `programs.py`: commands on standard input, one a line, answers on
 * standard output. It checks what it receives: every message contains its number as #0000000007#,
 * and each socket has to get each number once, in order, with the same bytes as every other socket.
 * Anything else ends the program with a line that begins with `failed`. Compiled with -DDEFLATE and
 * zlib it offers compression and accepts compressed frames.
 *
 *   connect                        open all sockets, send hello, wait until each is ready
 *   hello LENGTH\nTEXT             the text that sockets send from the next connect on
 *   fire COUNT LENGTH\nBYTES       send these bytes to the server, wait for COUNT more at every socket
 *   await COUNT                    the same without sending anything
 *   beat SECONDS LENGTH\nTEXT      each socket sends TEXT once, spread over the time; times answers
 *   bytes                          the bytes that all sockets have read since the last `bytes`
 *   drop                           close all sockets at once
 *   quit
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef DEFLATE
#include <zlib.h>
#define OFFER "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
#else
#define OFFER ""
#endif

#define KEPT 4096            /* numbers whose bytes are remembered for comparison */
#define AT_A_TIME 64         /* handshakes under way; some servers have a short backlog */
#define PER_ADDRESS 10000    /* sockets from one loopback address */
#define PATIENCE 120e9       /* nanoseconds to wait for an expected event */

enum state { GONE, CONNECTING, SHAKING, GREETING, READY };

struct conn {
    int fd;
    enum state state;
    int control;
    uint32_t next;           /* the number that has to come */
    int64_t beat_at;
    char *rest;              /* an unfinished frame */
    size_t held, room;
#ifdef DEFLATE
    z_stream inflater;
    int inflating, alone;    /* agreed to; and each message for itself */
#endif
};

static int epoll, port, sockets, http_control;
static const char *path, *control_path, *ready_text = "", *control_ready = "", *control_hello = "";
static const char *ping_text = "", *pong_text = "", *beat_text = "";
static char *hello = "";
static struct conn *conns, control;
static int waiting, opening, opened, beats_missing;
static uint32_t goal = 1, published = 1;
static int64_t first_at, last_at, *beats;
static int beat_count;
static char *kept[KEPT];
static size_t kept_length[KEPT];
static char input[1 << 18];
static uint64_t bytes_read;

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("failed ");
    vprintf(format, arguments);
    printf("\n");
    fflush(stdout);
    exit(1);
}

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void put(int fd, const char *data, size_t length) {
    while (length) {
        ssize_t n = write(fd, data, length);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (n < 0) fail("a write failed: %s", strerror(errno));
        data += n;
        length -= n;
    }
}

/* A mask of zeros leaves the payload as it is. */
static void put_frame(int fd, int opcode, const char *data, size_t length) {
    unsigned char *frame = malloc(length + 14);
    size_t n = 0;
    frame[n++] = 0x80 | opcode;
    if (length < 126) {
        frame[n++] = 0x80 | length;
    } else if (length < 65536) {
        frame[n++] = 0x80 | 126;
        frame[n++] = length >> 8;
        frame[n++] = length;
    } else {
        frame[n++] = 0x80 | 127;
        for (int i = 7; i >= 0; i--) frame[n++] = (uint64_t)length >> (8 * i);
    }
    memset(frame + n, 0, 4);
    n += 4;
    memcpy(frame + n, data, length);
    put(fd, (char *)frame, n + length);
    free(frame);
}

static void watch(struct conn *c, int events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(epoll, operation, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
}

static void open_conn(struct conn *c, int index) {
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("no more sockets: %s", strerror(errno));
    int one = 1;
    setsockopt(c->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f000002 + index / PER_ADDRESS);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) fail("bind: %s", strerror(errno));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    c->state = CONNECTING;
    c->held = 0;
    watch(c, EPOLLOUT, EPOLL_CTL_ADD);
}

static void shake(struct conn *c) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) fail("connect: %s", strerror(error));
    watch(c, EPOLLIN, EPOLL_CTL_MOD);
    if (c->control && http_control) {
        c->state = READY;
        opened++;
        return;
    }
    char request[8192];
    int length = snprintf(
        request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" OFFER "\r\n",
        c->control ? control_path : path, port);
    put(c->fd, request, length);
    c->state = SHAKING;
}

static void is_ready(struct conn *c) {
    c->state = READY;
    opened++;
    if (!c->control) opening--;
}

static void on_message(struct conn *c, char *data, size_t length) {
    if (c->state == GREETING) {
        const char *wanted = c->control ? control_ready : ready_text;
        if (memmem(data, length, wanted, strlen(wanted))) is_ready(c);
    }
    if (*ping_text && length == strlen(ping_text) && !memcmp(data, ping_text, length)) {
        put_frame(c->fd, 1, pong_text, strlen(pong_text));
        return;
    }
    if (c->beat_at && memmem(data, length, "\"phx_reply\"", 11)) {
        beats[beat_count++] = now() - c->beat_at;
        c->beat_at = 0;
        beats_missing--;
        return;
    }
    if (c->control) return;
    for (char *at = data; (at = memchr(at, '#', data + length - at)); at++) {
        if (data + length - at < 12 || at[11] != '#') continue;
        char *end;
        unsigned long number = strtoul(at + 1, &end, 10);
        if (end != at + 11) continue;
        if (number != c->next) fail("a socket got message %lu, not %u", number, c->next);
        if (number >= published) fail("a socket got message %lu, which was not sent", number);
        int slot = number % KEPT;
        if (!kept[slot]) {
            kept[slot] = malloc(length);
            kept_length[slot] = length;
            memcpy(kept[slot], data, length);
        } else if (kept_length[slot] != length || memcmp(kept[slot], data, length)) {
            fail("message %lu differs: %.*s", number, (int)length, data);
        }
        if (!first_at) first_at = now();
        if (++c->next == goal && !--waiting) last_at = now();
        return;
    }
}

#ifdef DEFLATE
static void agree(struct conn *c, char *head, size_t length) {
    if (!memmem(head, length, "permessage-deflate", 18)) return;
    if (inflateInit2(&c->inflater, -15) != Z_OK) fail("inflateInit2");
    c->inflating = 1;
    c->alone = !!memmem(head, length, "server_no_context_takeover", 26);
}

static void on_compressed(struct conn *c, char *data, size_t length) {
    static char text[1 << 20];
    static unsigned char end[] = {0, 0, 255, 255};
    if (!c->inflating) fail("a compressed frame nobody agreed to");
    if (c->alone) inflateReset(&c->inflater);
    c->inflater.next_out = (unsigned char *)text;
    c->inflater.avail_out = sizeof text;
    for (int part = 0; part < 2; part++) {
        c->inflater.next_in = part ? end : (unsigned char *)data;
        c->inflater.avail_in = part ? sizeof end : length;
        int found = inflate(&c->inflater, Z_SYNC_FLUSH);
        if ((found != Z_OK && found != Z_BUF_ERROR) || c->inflater.avail_in)
            fail("a frame cannot be inflated: %d", found);
    }
    on_message(c, text, sizeof text - c->inflater.avail_out);
}
#else
#define agree(c, head, length)
#define on_compressed(c, data, length) fail("a compressed frame")
#endif

/* Takes whole frames off the front; returns how many bytes it took. */
static size_t frames(struct conn *c, char *data, size_t length) {
    size_t done = 0;
    while (length - done >= 2) {
        unsigned char *head = (unsigned char *)data + done;
        size_t size = head[1] & 127, from = 2;
        if (head[1] & 128) fail("a masked frame from a server");
        if (size == 126) {
            if (length - done < 4) break;
            size = head[2] << 8 | head[3];
            from = 4;
        } else if (size == 127) {
            if (length - done < 10) break;
            size = 0;
            for (int i = 2; i < 10; i++) size = size << 8 | head[i];
            from = 10;
        }
        if (length - done < from + size) break;
        int opcode = head[0] & 15;
        if (!(head[0] & 128) || head[0] & 48) fail("a fragmented or extended frame");
        if (head[0] & 64) on_compressed(c, (char *)head + from, size);
        else if (opcode == 9) put_frame(c->fd, 10, (char *)head + from, size);
        else if (opcode == 8)
            fail("the server closed a socket with %d", size > 1 ? head[from] << 8 | head[from + 1] : 0);
        else if (opcode == 1 || opcode == 2) on_message(c, (char *)head + from, size);
        done += from + size;
    }
    return done;
}

static size_t take(struct conn *c, char *data, size_t length) {
    if (c->state == READY && c->control && http_control) return length;
    size_t done = 0;
    if (c->state == SHAKING) {
        char *end = memmem(data, length, "\r\n\r\n", 4);
        if (!end) return 0;
        if (strncmp(data, "HTTP/1.1 101", 12)) fail("no upgrade: %.*s", 40, data);
        done = end + 4 - data;
        agree(c, data, done);
        c->state = GREETING;
        const char *text = c->control ? control_hello : hello;
        if (*text) put_frame(c->fd, 1, text, strlen(text));
        if (!*(c->control ? control_ready : ready_text)) is_ready(c);
    }
    return done + frames(c, data + done, length - done);
}

static void readable(struct conn *c) {
    ssize_t n;
    if (c->held) {
        if (c->room < c->held + sizeof input) c->rest = realloc(c->rest, c->room = c->held + sizeof input);
        n = read(c->fd, c->rest + c->held, sizeof input);
    } else {
        n = read(c->fd, input, sizeof input);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 && c->control && http_control) {
        /* Kept alive for long enough; the next message opens another. */
        close(c->fd);
        c->state = GONE;
        return;
    }
    if (n <= 0) fail("the server ended a connection: %s", n ? strerror(errno) : "end of file");
    if (!c->control) bytes_read += n;
    char *data = c->held ? c->rest : input;
    size_t length = c->held + n, done = take(c, data, length);
    if (done == length) {
        free(c->rest);
        c->rest = NULL;
        c->held = c->room = 0;
        return;
    }
    if (!c->held) c->rest = malloc(c->room = length - done);
    memmove(c->rest, data + done, length - done);
    c->held = length - done;
}

static void turn(int milliseconds) {
    struct epoll_event events[512];
    int n = epoll_wait(epoll, events, 512, milliseconds);
    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->state == CONNECTING) shake(c);
        else if (c->state != GONE) readable(c);
    }
}

static void open_control(void) {
    if (control.state != GONE) return;
    int64_t began = now();
    control.control = 1;
    open_conn(&control, 0);
    while (control.state != READY) {
        turn(1000);
        if (now() - began > PATIENCE) fail("the publisher's connection did not open");
    }
}

static void connect_all(void) {
    open_control();
    int64_t began = now();
    opened = 0;
    for (int made = 0; opened < sockets;) {
        while (made < sockets && opening < AT_A_TIME) {
            opening++;
            open_conn(&conns[made], made);
            made++;
        }
        turn(1000);
        if (now() - began > PATIENCE * 2) fail("only %d of %d sockets opened", opened, sockets);
    }
    printf("connected %lld\n", (long long)(now() - began));
}

static void await(uint32_t count, int64_t sent) {
    int64_t began = now();
    goal += count;
    waiting = 0;
    for (int i = 0; i < sockets; i++) waiting += conns[i].next < goal;
    last_at = now();
    while (waiting) {
        turn(1000);
        if (now() - began > PATIENCE) fail("%d sockets did not get message %u", waiting, goal - 1);
    }
    int slot = (goal - 1) % KEPT;
    printf("done %lld %lld %lld %zu\n", (long long)sent, (long long)first_at, (long long)last_at,
           kept_length[slot]);
    fwrite(kept[slot], 1, kept_length[slot], stdout);
    printf("\n");
    first_at = 0;
}

static void expect(uint32_t count) {
    /* Room for the next numbers: what was kept for others in their places is forgotten. */
    for (uint32_t n = published; n < published + count; n++) {
        free(kept[n % KEPT]);
        kept[n % KEPT] = NULL;
    }
    published += count;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void beat(double seconds) {
    int64_t began = now();
    beats = realloc(beats, sockets * sizeof *beats);
    beat_count = 0;
    beats_missing = sockets;
    int sent = 0;
    /* The publisher needs its own heartbeat. */
    if (!http_control && control.state == READY) put_frame(control.fd, 1, beat_text, strlen(beat_text));
    while (beats_missing) {
        int64_t passed = now() - began;
        while (sent < sockets && passed >= seconds * 1e9 * sent / sockets) {
            conns[sent].beat_at = now();
            put_frame(conns[sent].fd, 1, beat_text, strlen(beat_text));
            sent++;
        }
        turn(sent < sockets ? 1 : 1000);
        if (passed > PATIENCE + seconds * 1e9) fail("%d heartbeats had no answer", beats_missing);
    }
    qsort(beats, beat_count, sizeof *beats, by_value);
    printf("beaten %lld %lld %lld\n", (long long)beats[beat_count / 2],
           (long long)beats[beat_count * 99 / 100], (long long)beats[beat_count - 1]);
}

static char *body(size_t length) {
    char *text = calloc(1, length + 1);
    if (fread(text, 1, length, stdin) != length) fail("a command was cut off");
    return text;
}

/* Between commands the sockets are served too: a server's pings have to be answered. */
static int command(char *line, size_t room) {
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        fd_set set;
        FD_ZERO(&set);
        FD_SET(0, &set);
        struct timeval soon = {0, 0};
        if (select(1, &set, NULL, NULL, &soon) > 0) return fgets(line, room, stdin) != NULL;
        turn(1);
    }
}

int main(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "port")) port = atoi(value);
        else if (!strcmp(name, "sockets")) sockets = atoi(value);
        else if (!strcmp(name, "path")) path = value;
        else if (!strcmp(name, "hello")) hello = value;
        else if (!strcmp(name, "ready")) ready_text = value;
        else if (!strcmp(name, "ping")) ping_text = value;
        else if (!strcmp(name, "pong")) pong_text = value;
        else if (!strcmp(name, "control-path")) control_path = value;
        else if (!strcmp(name, "control-hello")) control_hello = value;
        else if (!strcmp(name, "control-ready")) control_ready = value;
        else fail("unknown argument %s", name);
    }
    http_control = !control_path;
    struct rlimit files = {sockets + 1024, sockets + 1024}, had;
    getrlimit(RLIMIT_NOFILE, &had);
    if (had.rlim_cur < files.rlim_cur) {
        if (files.rlim_max < had.rlim_max) files.rlim_max = had.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files)) fail("cannot open %d files", sockets + 1024);
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc(sockets, sizeof *conns);
    for (int i = 0; i < sockets; i++) conns[i].next = 1;
    char line[256];
    while (command(line, sizeof line)) {
        unsigned count;
        size_t length;
        double seconds;
        if (!strcmp(line, "connect\n")) connect_all();
        else if (sscanf(line, "hello %zu", &length) == 1) hello = body(length);
        else if (sscanf(line, "await %u", &count) == 1) {
            await(count, 0);
        } else if (sscanf(line, "expect %u", &count) == 1) {
            expect(count);
            printf("expecting\n");
        } else if (sscanf(line, "fire %u %zu", &count, &length) == 2) {
            char *text = body(length);
            expect(count);
            open_control();
            int64_t sent = now();
            if (http_control) put(control.fd, text, length);
            else put_frame(control.fd, 1, text, length);
            free(text);
            await(count, sent);
        } else if (sscanf(line, "beat %lf %zu", &seconds, &length) == 2) {
            beat_text = body(length);
            beat(seconds);
        } else if (!strcmp(line, "bytes\n")) {
            printf("read %llu\n", (unsigned long long)bytes_read);
            bytes_read = 0;
        } else if (!strcmp(line, "drop\n")) {
            for (int i = 0; i < sockets; i++) {
                close(conns[i].fd);
                conns[i].state = GONE;
            }
            printf("dropped\n");
        } else if (!strcmp(line, "quit\n")) return 0;
        else fail("unknown command %s", line);
        fflush(stdout);
    }
    return 0;
}
