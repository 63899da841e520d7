"""Invent athletes, tournaments, formats and places: real first and last names recombined, or made up from syllables."""

from __future__ import annotations

import random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """
    Anna Maria Sofia Laura Julia Emma Olivia Charlotte Amelie Clara Elena Irina Natalia Olga Svetlana Ekaterina
    Daria Polina Ksenia Yulia Ivana Petra Jana Lucie Zuzana Katarína Magdalena Agnieszka Małgorzata Zofia Hanna
    Ida Ingrid Astrid Freja Maja Sigrid Linnéa Aino Emilia Helena Inês Beatriz Mariana Carolina Fernanda Camila
    Valentina Lucía María Carmen Pilar Noémie Chloé Camille Élodie Anaïs Giulia Chiara Francesca Federica
    Martina Alessia Eleni Despina Zeynep Elif Ayşe Fatma Leyla Nour Salma Amina Fatima Hana Mariam Aaliyah Priya
    Ananya Deepa Kavita Meera Mei Li Xin Jing Ying Yan Na Fang Yu Hui Xiaoyu Yuki Haruka Sakura Aoi Rina Minami
    Ji-woo Seo-yeon Min-ji Hye-jin Soo-jin Yeon-ah Eun-ji Thi Linh Siti Dewi Putri Ratna Ayu Nurul Siew Wei
    Michael James John David Daniel Matthew Andrew Thomas Christopher Joshua Ryan Kyle Tyler Nathan Ethan Caleb
    Hunter Mason Peter Paul Mark Lukas Jonas Felix Max Moritz Sebastian Florian Matthias Jürgen Karl Heinz
    Günther Uwe Stefan Andreas Rolf Lars Nils Sven Björn Anders Magnus Erik Håkon Mads Rasmus Viggo Juha Mikko
    Jari Ville Piotr Paweł Krzysztof Tomasz Jakub Michał Jan Marek Tomáš Jiří Ondřej Ivan Dmitri Sergei
    Aleksandr Vladimir Nikita Maksim Evgeny Kirill Oleksandr Andriy Bohdan Mykola Dragan Nikola Luka Marko
    Stjepan Dejan László Zoltán Balázs Gergő Ákos Bence Mihai Ioan Andrei Radu Georgi Dimitar Stoyan Nikos
    Yannis Spyros Mehmet Emre Burak Kerem Ahmed Mohamed Omar Youssef Karim Tarek Ali Hassan Reza Amir Farid
    Mustafa Ibrahim Abdoulaye Moussa Kofi Kwame Chidi Emeka Tunde Pierre Jean Louis Antoine Hugo Théo Mathieu
    Rémi Giovanni Marco Luca Matteo Alessandro Carlos José Luis Miguel Diego Javier Rafael João Pedro Thiago
    Bruno Gustavo Vitor Raj Arjun Vikram Rohan Sanjay Anil Jun Long Hao Zhen Bo Lin Chen Ming Tao Hiroshi Kenji
    Takumi Daiki Ryo Shota Kazuya Yuta Akira Dong-hyun Sang-woo Ji-hoon Min-ho Joon Seung-ho Jae-won Budi Agus
    Hendra Rizky Mohd Nguyen Minh Tuan Usman Kim Lee Nick Sam Katie Amy Kate Alex Jack Tom Ben Adam Luke Joe
    Greg Ian Grant Cameron Emily Cate Ruth Grace Alice Rosa Teresa Nadia Vera Irma Greta Lotte Saskia Femke
    Sanne Eva Mila Jelena Ana Ines Paula Laia Aroa Nerea Sunita Lakshmi Indira Shanti Mariko Keiko Naoko Fumiko
    Hyun-ju Young-ja Mai Lan Somsak Anong George Henry Edward Arthur Frank Simon Philip Martin Robert Richard
    Kevin Brian Patrick Sean Liam Owen Rhys Angus Duncan Willem Pieter Joost Bram Sander Gerrit Emil Oskar Axel
    Gustav Henrik Ole Knut Arne
    """
)

LAST_NAMES = _words(
    """
    Smith Jones Williams Brown Taylor Wilson Johnson Walker Wright Thompson White Hughes Edwards Green Hall Wood
    Harris Martin Jackson Clarke Carter Murphy Kelly Ryan Campbell Stewart Ross Fraser Morgan Evans Cooper
    Miller Davis Anderson Moore Clark Lewis Young Allen King Müller Schmidt Schneider Fischer Weber Meyer Wagner
    Becker Schulz Hoffmann Koch Bauer Richter Klein Wolf Schröder Neumann Schwarz Krüger Zimmermann Braun
    Hartmann Lange Werner Krause Lehmann Köhler Maier Huber Gruber Steiner Moser Egger Andersson Johansson
    Karlsson Nilsson Eriksson Larsson Olsson Persson Lindberg Hansen Olsen Larsen Berg Haugen Johannessen
    Nielsen Jensen Pedersen Christensen Sørensen Rasmussen Virtanen Korhonen Mäkinen Nieminen Heikkinen Nowak
    Kowalski Wiśniewski Wójcik Kamiński Lewandowski Zieliński Novák Svoboda Dvořák Černý Procházka Horváth
    Kovács Nagy Szabó Tóth Varga Molnár Németh Popescu Ionescu Dumitru Stan Ivanov Petrov Sidorov Smirnov
    Kuznetsov Popov Volkov Sokolov Lebedev Kozlov Novikov Morozov Orlova Shevchenko Kovalenko Bondarenko
    Tkachenko Melnyk Nikolić Jovanović Petrović Marković Horvat Babić Perković Dimitrov Georgiev Papadopoulos
    Nikolaidis Georgiou Yılmaz Kaya Demir Çelik Şahin Öztürk Aydın Hassan Ahmed Mahmoud El-Sayed Abdelrahman
    Mansour Haddad Benali Traoré Diallo Keita Mensah Okafor Adeyemi Eze Nkosi Dlamini van der Merwe Botha Dupont
    Durand Moreau Laurent Lefèvre Girard Fontaine Rousseau Lambert Martinez Rossi Ferrari Russo Esposito Bianchi
    Romano Colombo Ricci Marino Greco Conti De Luca García Fernández González Rodríguez López Sánchez Pérez
    Gómez Jiménez Ruiz Torres Ramírez Flores Silva Santos Oliveira Souza Pereira Costa Ferreira Almeida Carvalho
    Ribeiro Sharma Patel Singh Kumar Gupta Reddy Nair Rao Kaur Chopra Wang Li Zhang Liu Chen Yang Huang Zhao Wu
    Zhou Xu Sun Ma Zhu Hu Guo He Lin Gao Luo Zheng Liang Xie Tang Feng Deng Ye Cheng Sato Suzuki Takahashi
    Tanaka Watanabe Ito Yamamoto Nakamura Kobayashi Kato Yoshida Yamada Sasaki Matsumoto Inoue Kimura Hayashi
    Shimizu Ikeda Kim Lee Park Choi Jung Kang Cho Yoon Jang Lim Han Oh Seo Shin Kwon Hwang Ahn Song Yoo Hong
    Nguyen Tran Le Pham Hoang Phan Vu Dang Wijaya Santoso Setiawan Kurniawan Hidayat Pratama Lestari Susanto Tan
    Wong Goh Ong Chia Yeo Chan Cheung Leung Lau Wongpanich Srisai Hashimoto Powell O'Brien O'Connor MacDonald
    Van den Jong Jansen Bakker Visser Smit Dijkstra Mulder Peters Janssens Bennett Barnes Palmer Fletcher Marsh
    Hunt Webb Foster Reid Gordon Graham Burns Fuchs Vogel Keller Frank Berger Winkler Lorenz Baumann Franke
    Albrecht Winter Lund Holm Dahl Lie Strand Solberg Moen Haugland Laine Lehtonen Salo Mäki Kubiak Mazur
    Krawczyk Pospíšil Kučera Veselý Balogh Farkas Lakatos Simon Rusu Marin Stoica Todorov Angelov Pavlov Fedorov
    Mikhailov Belov Lysenko Moroz Savchenko Kovač Novak Knežević Pavlović Arslan Doğan Kılıç Koç Suleiman Khalil
    Saleh Nasser Osei Boateng Abubakar Ndlovu Mokoena Petit Roux Blanc Garnier Faure Mercier Gallo Fontana
    Moretti Serra Ortega Castro Vargas Rojas Mendoza Moreno Barbosa Rocha Cardoso Mehta Joshi Verma Iyer Ogawa
    Mori Endo Ishikawa Fujita Okada Nishimura Goto Ryu Bae Moon Baek Dinh Bui Suryadi Gunawan Hartono Lee-Brown
    Smith-Jones
    """
)

ONSETS = (
    *_words("b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sch sh sl st t tr v w y z zh"),
    *_words("b d k l m n r s t v"),
    "",
)
NUCLEI = _words("a e i o u ai au ee ei ia io oo ou ue y a e i o u a e i o u a e i o u á é í ó ö ü ä å")
CODAS = (*_words("n r s l m t k nd ng rt sk ck th x v z ić ov"), *[""] * 14)

REGIONS = (
    *_words(
        """
        World European Asian African American Commonwealth Olympic Mediterranean Pan-American Pan-Pacific Arab Islamic
        Nordic Balkan Baltic Caribbean Oceania Iberian Alpine Danube Bolivarian Pacific Asia Atlantic Ibero-American
        East-Asian South-Asian Gulf Goodwill
        """
    ),
    *("Pan American", "South American", "Central American", "Southeast Asian", "East Asian", "South Asian"),
    "Pan Pacific",
)
LEVELS = (
    *_words("Junior Youth Team Indoor Military University U23 Beach Summer"),
    *("Grand Prix", "Mixed Team", "", "", "", ""),
)
EVENTS = (
    *("Championships", "Championships", "Championships", "Games", "Games"),
    *("Cup", "Championship", "Festival", "Trophy", "League", "Open", "Tour"),
)
SUFFIXES = (" (LC)", " (SC)", " Finals", *[""] * 7)
TOURNAMENTS = (
    *("Olympic Games", "World Championships", "European Championships", "Asian Games", "Commonwealth Games"),
    *("World Cup", "Universiade"),
)

DISTANCES = tuple(
    f"{distance} {unit}"
    for unit, distances in (("m", "50 60 100 200 400 800 1500 4x50 4x100 4x200 4x400"), ("km", "5 10"))
    for distance in distances.split()
)
STROKES = (
    *("", " freestyle", " butterfly", " backstroke", " breaststroke", " medley", " mixed medley", " relay"),
    *(" mixed freestyle", " hurdles"),
)
GROUPS = _words("Men's Women's Mixed Boys' Girls'")
GAMES = _words("singles doubles team relay pairs")
MANNERS = ("Individual", "Team", "Mixed team", "Recurve", "Compound", "Open", "Kumite")
DISCIPLINES = (
    *("", " sabre", " foil", " épée", " dressage", " eventing", " jumping", " kumite", " kata", " pistol", " rifle"),
    *(" recurve", " pursuit"),
)
ALONE = ("Singles", "Doubles", "Team", "Mixed doubles", "Mixed team", "Individual", "Mixed Doubles", "Special dressage")


def word(rng: random.Random, syllables: int) -> str:
    """Return a made-up word with a capital."""
    sounds = [rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(syllables)]
    return "".join(sounds).capitalize()


def athlete(rng: random.Random, invented: float = 0.5) -> str:
    """Return a person's name, made up with the probability `invented`, else recombined from real ones."""
    if rng.random() >= invented:
        names = [rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)]
        if rng.random() < 0.1:
            names.append(rng.choice(LAST_NAMES))
        if rng.random() < 0.25:
            names.reverse()
        return " ".join(names)
    shape = rng.random()
    if shape < 0.15:
        return f"{word(rng, 1)} {word(rng, 1)}-{word(rng, 1).lower()}"
    if shape < 0.2:
        return f"{word(rng, 1)[0]}. {word(rng, 1)[0]}. {word(rng, 2)}"
    if shape < 0.25:
        return f"{word(rng, 2)} {word(rng, 1)}-{word(rng, 2)}"
    return " ".join(word(rng, rng.choice((1, 1, 2, 2, 3))) for _ in range(rng.choice((2, 2, 2, 2, 2, 3))))


def tournament(rng: random.Random, invented: float = 0.15) -> str:
    """Return a tournament's name."""
    if rng.random() < 0.15:
        return rng.choice(TOURNAMENTS)
    region = word(rng, 2) if rng.random() < invented else rng.choice(REGIONS)
    title = " ".join(part for part in (region, rng.choice(LEVELS), rng.choice(EVENTS)) if part)
    return title + rng.choice(SUFFIXES)


def event_format(rng: random.Random) -> str:
    """Return the name of a format: a distance and a stroke, a team, a weight class."""
    shape = rng.random()
    if shape < 0.4:
        return rng.choice(DISTANCES) + rng.choice(STROKES)
    if shape < 0.7:
        return f"{rng.choice(GROUPS)} {rng.choice(GAMES)}"
    if shape < 0.8:
        return rng.choice(ALONE)
    if shape < 0.95:
        return rng.choice(MANNERS) + rng.choice(DISCIPLINES)
    return f"Kumite {rng.choice(('−', '+', '-', ''))}{rng.randrange(45, 110)} kg"


def city(rng: random.Random) -> str:
    """Return the name of a place that is not on any map."""
    return word(rng, 2)
